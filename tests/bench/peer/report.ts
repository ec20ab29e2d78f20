/** What a run of the comparison found, and how it is printed. */
import { KEDGE, type Work } from "./work.ts";

export interface Start {
  readonly name: string;
  readonly description: string;
  readonly modelBytes: number;
  /** From the start of the process until the model was loaded. */
  readonly readySeconds: number;
  /** From the start of the process until the first answer was there; shader caches are empty. */
  readonly firstAnswerSeconds: number;
  /** An answer of the same size, asked later. */
  readonly laterAnswerSeconds: number;
}

export interface Row {
  readonly work: Work;
  /** Medians by side. */
  readonly tokensPerSecond: Readonly<Record<string, number>>;
  /** Kedge's rate by that of the fastest llama.cpp side, round by round, and their median. */
  readonly ratios: readonly number[] | null;
  readonly ratio: number | null;
  readonly rounds: number;
}

export interface Report {
  readonly model: string;
  /** llama.cpp's: a quantisation or a file. */
  readonly weights: string;
  readonly starts: readonly Start[];
  readonly rows: readonly Row[];
}

/** A table: one row a measurement, one column a side. */
export function tableText({ model, weights, starts, rows }: Report): string {
  const names = starts.map(({ name }) => name);
  const lines = [
    `model: ${model}; llama.cpp's weights: ${weights}`,
    ...starts.map(({ name, description }) => `${name}: ${description}`),
    "",
    line(["", ...names, names.includes(KEDGE) ? "ratio" : ""]),
    line(["weights, MB", ...starts.map(({ modelBytes }) => (modelBytes / 1e6).toFixed(1))]),
    line(["loaded after, s", ...starts.map((start) => start.readySeconds.toFixed(2))]),
    line(["first answer after, s", ...starts.map((s) => s.firstAnswerSeconds.toFixed(2))]),
    line(["a later answer, s", ...starts.map((s) => s.laterAnswerSeconds.toFixed(2))]),
    ...rows.map(({ work, tokensPerSecond, ratio }) => {
      const rates = names.map((name) => tokensPerSecond[name]?.toFixed(0) ?? "-");
      return line([workText(work), ...rates, ratio?.toFixed(2) ?? ""]);
    }),
  ];
  return lines.join("\n");
}

function workText(work: Work): string {
  if (work.kind === "prefill") return `prefill ${work.promptTokens}, tokens/s`;
  const unsampled = work.bare ? ", not sampled" : "";
  return `decode ${work.batch} after ${work.promptTokens}${unsampled}, tokens/s`;
}

function line([first = "", ...others]: readonly string[]): string {
  return (first.padEnd(40) + others.map((text) => text.padStart(22)).join("")).trimEnd();
}
