import assert from "node:assert/strict";
import { byteText, createProgress } from "../../runtime/weights/progress.ts";

/** An output that keeps what is printed, three bytes a call. */
function recorder(terminal: boolean) {
  const bytes: number[] = [];
  return {
    isTerminal: () => terminal,
    writeSync(piece: Uint8Array) {
      const taken = Math.min(3, piece.length);
      bytes.push(...piece.subarray(0, taken));
      return taken;
    },
    text: () => new TextDecoder().decode(Uint8Array.from(bytes)),
  };
}

/** Four updates, `stepMs` apart, then the end. */
function run(terminal: boolean, stepMs: number): string {
  const output = recorder(terminal);
  let time = 0;
  const progress = createProgress("load small", output, () => time);
  for (let step = 1; step <= 4; step++) {
    time += stepMs;
    progress.update(step * 25e6, 100e6);
  }
  progress.finish(100e6, 2);
  return output.text();
}

Deno.test("progress on a terminal: one line that is redrawn and then replaced", () => {
  const text = run(true, 60);
  assert.equal(text.split("\n").length, 2);
  assert.ok(text.includes("load small [=======                       ]  25 % of 100 MB"));
  assert.ok(text.includes(`load small [${"=".repeat(30)}] 100 % of 100 MB`));
  assert.ok(text.endsWith("\r\u001b[2Kload small: 100 MB in 2.00 s, 50.0 MB/s\n"));
});

Deno.test("progress elsewhere: plain lines, few of them", () => {
  assert.equal(
    run(false, 1500),
    "load small: 50 % of 100 MB\nload small: 100 % of 100 MB\n" +
      "load small: 100 MB in 2.00 s, 50.0 MB/s\n",
  );
  assert.equal(run(false, 10), "load small: 100 MB in 2.00 s, 50.0 MB/s\n");
});

Deno.test("clear removes the bar once and nothing else", () => {
  const output = recorder(true);
  let time = 0;
  const progress = createProgress("load", output, () => time);
  progress.clear();
  assert.equal(output.text(), "");
  time = 1000;
  progress.update(1, 2);
  const shown = output.text();
  progress.clear();
  progress.clear();
  assert.equal(output.text(), `${shown}\r\u001b[2K`);
});

Deno.test("byteText", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [9996, "10.0 kB"],
    [29_343_656, "29.3 MB"],
    [999_600, "1.00 MB"],
    [98_245_528_576, "98.2 GB"],
    [2.5e15, "2500 TB"],
  ];
  for (const [bytes, text] of cases) assert.equal(byteText(bytes), text);
});
