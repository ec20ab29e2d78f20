/** `kedge bench`: what this machine does with a model, measured through the engine. */
import type { Engine } from "../engine/engine.ts";
import { byteText } from "../weights/progress.ts";
import { measureDecode, measurePrefill } from "./bench_engine.ts";
import { measureSampler, measureTokenizer, SAMPLER_LOGITS } from "./bench_text.ts";
import {
  asksForSteps,
  benchSteps,
  measureSteps,
  type StepBenchOptions,
  type StepBenchReport,
  stepText,
} from "./bench_steps.ts";
import { openModel } from "./open_model.ts";

export interface BenchOptions extends StepBenchOptions {
  readonly full?: boolean;
}

/** Medians of several runs. null: the context is too short for the measurement. */
export interface BenchReport {
  readonly device: string;
  readonly adapter: string;
  readonly model: string;
  readonly parameterCount: number;
  readonly weightBytes: number;
  readonly loadSeconds: number;
  readonly prefill128TokensPerSecond: number | null;
  readonly prefill1024TokensPerSecond: number | null;
  readonly decodeBatch1TokensPerSecond: number | null;
  /** Summed over the eight sequences. */
  readonly decodeBatch8TokensPerSecond: number | null;
  /** From the request, with a prompt of 128 tokens, until its first token. */
  readonly firstTokenMs: number | null;
  /** 0 on the cpu device, which has none. */
  readonly dispatchesPerToken: number | null;
  readonly tokenizerMegabytesPerSecond: number;
  /** One draw over SAMPLER_LOGITS logits. */
  readonly samplerMicroseconds: number;
  /** Steps of the device alone with their kernels; null on the cpu device. */
  readonly steps: StepBenchReport | null;
}

/** Of those: what a first look needs. */
const STEPS = { contexts: [1_024], batches: [1, 8], prefills: [512] };

const RUNS = 3;
const FULL_RUNS = 9;
const BATCH = 8;

/** Prints a table, or one JSON object. Throws what openModel throws. */
export async function bench(options: BenchOptions): Promise<void> {
  if (asksForSteps(options)) return await benchSteps(options);
  const engineReport = await benchEngine(options);
  const { device } = engineReport;
  const steps = device === "webgpu" ? await measureSteps({ ...options, ...STEPS, device }) : null;
  const report: BenchReport = { ...engineReport, steps };
  console.log(options.json === true ? JSON.stringify(report) : tableText(report));
}

type EngineReport = Omit<BenchReport, "steps">;

async function benchEngine(options: BenchOptions): Promise<EngineReport> {
  const { engine, tokenizer } = await openModel({ ...options, slots: BATCH });
  try {
    const runs = options.full === true ? FULL_RUNS : RUNS;
    return await measure(engine, runs, {
      tokenizerMegabytesPerSecond: measureTokenizer(tokenizer, runs),
      samplerMicroseconds: measureSampler(runs),
    });
  } finally {
    await engine.close();
  }
}

async function measure(
  engine: Engine,
  runs: number,
  text: Pick<BenchReport, "tokenizerMegabytesPerSecond" | "samplerMicroseconds">,
): Promise<EngineReport> {
  const { model } = engine;
  const short = await measurePrefill(engine, 128, runs);
  const long = await measurePrefill(engine, 1024, runs);
  const alone = await measureDecode(engine, 1, runs);
  const batch = await measureDecode(engine, BATCH, runs);
  return {
    device: model.device,
    adapter: model.deviceDescription,
    model: model.id,
    parameterCount: model.parameterCount,
    weightBytes: model.weightBytes,
    loadSeconds: model.loadSeconds,
    prefill128TokensPerSecond: short?.tokensPerSecond ?? null,
    prefill1024TokensPerSecond: long?.tokensPerSecond ?? null,
    decodeBatch1TokensPerSecond: alone?.tokensPerSecond ?? null,
    decodeBatch8TokensPerSecond: batch?.tokensPerSecond ?? null,
    firstTokenMs: short?.firstTokenMs ?? null,
    dispatchesPerToken: alone?.dispatchesPerStep ?? null,
    ...text,
  };
}

function tableText(report: BenchReport): string {
  const rate = (value: number | null) => numberText(value, "tokens/s");
  const millions = (report.parameterCount / 1e6).toFixed(1);
  const rows: [string, string][] = [
    ["device", `${report.device}: ${report.adapter}`],
    ["model", `${report.model}, ${millions} M parameters, ${byteText(report.weightBytes)}`],
    ["load", `${report.loadSeconds.toFixed(2)} s`],
    ["prefill, 128 tokens", rate(report.prefill128TokensPerSecond)],
    ["prefill, 1,024 tokens", rate(report.prefill1024TokensPerSecond)],
    ["decode, batch 1", rate(report.decodeBatch1TokensPerSecond)],
    [`decode, batch ${BATCH}`, rate(report.decodeBatch8TokensPerSecond)],
    ["first token, 128 tokens", numberText(report.firstTokenMs, "ms")],
    ["dispatches per token", numberText(report.dispatchesPerToken, "")],
    ["tokenizer, English", numberText(report.tokenizerMegabytesPerSecond, "MB/s")],
    [
      `sampler, ${SAMPLER_LOGITS.toLocaleString("en")} logits`,
      numberText(report.samplerMicroseconds, "us"),
    ],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(26)}${value}`);
  const steps = report.steps === null
    ? []
    : ["", "the device's steps alone", stepText(report.steps)];
  return [...lines, ...steps].join("\n");
}

function numberText(value: number | null, unit: string): string {
  if (value === null) return "not measured: the context is too short";
  const text = value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1);
  return `${text.toLocaleString("en")} ${unit}`.trimEnd();
}
