/** Shows how far a load is: a bar that redraws on a terminal, a line now and then elsewhere. */

/** What is needed of an output; Deno.stderr has it. */
export interface ProgressOutput {
  isTerminal(): boolean;
  writeSync(bytes: Uint8Array): number;
}

export interface Progress {
  update(done: number, total: number): void;
  /** Removes the bar and prints bytes, seconds and rate. */
  finish(bytes: number, seconds: number): void;
  /** Removes the bar, so that an error message has its own line. */
  clear(): void;
}

const BAR_CHARACTERS = 30;
const REDRAW_MS = 50;
/** Without a terminal: often enough to tell slow from stuck, rare enough for a log. */
const LINE_MS = 2000;
const ERASE_LINE = "\r\u001b[2K";

/** `label` begins each line: `load kedge-tiny`. `now` gives milliseconds. */
export function createProgress(
  label: string,
  output: ProgressOutput = Deno.stderr,
  now: () => number = () => performance.now(),
): Progress {
  const terminal = output.isTerminal();
  let shownAt = now();
  let barIsShown = false;
  const print = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    for (let sent = 0; sent < bytes.length;) sent += output.writeSync(bytes.subarray(sent));
  };
  const clear = () => {
    if (barIsShown) print(ERASE_LINE);
    barIsShown = false;
  };
  return {
    update(done, total) {
      if (now() - shownAt < (terminal ? REDRAW_MS : LINE_MS)) return;
      shownAt = now();
      const share = total > 0 ? done / total : 1;
      const amount = `${String(Math.floor(share * 100)).padStart(3)} % of ${byteText(total)}`;
      if (!terminal) return print(`${label}: ${amount.trim()}\n`);
      const filled = Math.floor(share * BAR_CHARACTERS);
      const bar = "=".repeat(filled).padEnd(BAR_CHARACTERS);
      print(`${ERASE_LINE}${label} [${bar}] ${amount}`);
      barIsShown = true;
    },
    finish(bytes, seconds) {
      clear();
      const rate = seconds > 0 ? `, ${byteText(bytes / seconds)}/s` : "";
      print(`${label}: ${byteText(bytes)} in ${seconds.toFixed(2)} s${rate}\n`);
    },
    clear,
  };
}

/** Bytes in decimal units, three digits: `29.3 MB`. */
export function byteText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
