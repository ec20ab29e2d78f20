/** `kedge bench` of the device alone: any context and batch, and beside full attention. */
import { UsageError } from "../errors.ts";
import { chooseWeights } from "../engine/weight_choice.ts";
import { BENCH_POOL_BYTES_DEFAULT } from "../limits.ts";
import type { ModelShape } from "../model/device.ts";
import { loadWeights, openModelFolder } from "../weights/model_folder.ts";
import { byteText } from "../weights/progress.ts";
import { residentBytes, type WeightChoice } from "../weights/resident.ts";
import {
  benchDevice,
  type BenchModel,
  type DecodeSpeed,
  type DeviceBenchReport,
} from "./bench_device.ts";
import { fullAttention, readShape, syntheticModel } from "./bench_synthetic.ts";
import { kernelLines, type KernelTime, peakText } from "./bench_kernels.ts";
import { rounded } from "./statistics.ts";
import { EMBEDDED_MODEL, type ModelOptions, openTuning } from "./open_model.ts";

export interface StepBenchOptions extends ModelOptions {
  /** A shape by name, or a config.json: random weights in place of a model folder. */
  readonly synthetic?: string;
  readonly contexts?: readonly number[];
  readonly batches?: readonly number[];
  readonly prefills?: readonly number[];
  /** Least time of each measurement. */
  readonly seconds?: number;
  readonly againstFullAttention?: boolean;
  readonly json?: boolean;
}

const K = 1_024;
const CONTEXTS = [4 * K];
const COMPARED_CONTEXTS = [4 * K, 32 * K, 128 * K, 512 * K, 1_024 * K];
const BATCHES = [1, 8, 32, 64];
const PREFILLS = [512, 2 * K];
const SECONDS = 1;

/** A model's step times, as printed with --json. */
export interface StepBenchReport extends DeviceBenchReport {
  readonly model: string;
  readonly weights: string;
}

/** Whether options ask for steps of the device alone rather than for the engine. */
export function asksForSteps(options: StepBenchOptions): boolean {
  const { synthetic, contexts, batches, prefills, againstFullAttention } = options;
  return againstFullAttention === true ||
    [synthetic, contexts, batches, prefills].some((option) => option !== undefined);
}

/** Prints a table, or one JSON object. */
export async function benchSteps(options: StepBenchOptions): Promise<void> {
  if (options.againstFullAttention === true) return await compareAttention(options);
  const report = await measureSteps(options);
  console.log(options.json === true ? JSON.stringify(report) : stepText(report));
}

/** Measures what is asked for, else the usual steps. Throws what the device throws. */
export async function measureSteps(options: StepBenchOptions): Promise<StepBenchReport> {
  const tuning = await openTuning(options.tuning);
  const { model, name, weights, weightBytes } = await chooseModel(options);
  return {
    model: name,
    weights,
    ...await benchDevice(options.device, model, {
      contexts: options.contexts ?? CONTEXTS,
      batches: options.batches ?? BATCHES,
      prefills: options.prefills ?? PREFILLS,
      seconds: options.seconds ?? SECONDS,
      poolBytes: poolBytes(options, weightBytes),
      tuning,
    }),
  };
}

interface ChosenModel {
  readonly model: BenchModel;
  readonly name: string;
  readonly weights: string;
  /** On the device. */
  readonly weightBytes: number;
}

async function chooseModel(options: StepBenchOptions): Promise<ChosenModel> {
  const { synthetic, weights } = options;
  if (synthetic !== undefined) {
    const choice = weights ?? "q4";
    return synthesize(readShape("--synthetic", synthetic), `synthetic ${synthetic}`, choice);
  }
  const folder = await openModelFolder(options.model ?? EMBEDDED_MODEL);
  const { shape } = folder.config;
  const chosen = chooseWeights(folder.tensors.weights, weights, shape, {
    slots: 1,
    contextTokens: 1,
    latentFormat: "f16",
    memoryBytes: options.memory,
    deviceKind: options.device === "cpu" ? "cpu" : "webgpu",
  });
  const load: BenchModel["load"] = async (device) =>
    (await loadWeights(folder, device, () => {}, chosen.weights)).bytes;
  const model = { shape, specs: chosen.weights.map(({ spec }) => spec), load };
  return { model, name: folder.id, weights: chosen.name, weightBytes: chosen.bytes };
}

function synthesize(shape: ModelShape, name: string, weights: WeightChoice): ChosenModel {
  const model = syntheticModel(shape, weights);
  const weightBytes = model.specs.reduce((sum, spec) => sum + residentBytes(spec), 0);
  return { model, name, weights, weightBytes };
}

/** Share of a budget kept for the buffers of a step. */
const SCRATCH_SHARE = 0.1;

function poolBytes({ memory }: StepBenchOptions, weightBytes: number): number {
  if (memory === undefined) return BENCH_POOL_BYTES_DEFAULT;
  return Math.max(0, memory * (1 - SCRATCH_SHARE) - weightBytes);
}

/** One context of the model beside the same model with full attention in every layer. */
interface Comparison {
  readonly context: number;
  readonly hybridMs: number | null;
  readonly fullMs: number | null;
  readonly hybridCacheBytes: number;
  readonly fullCacheBytes: number;
}

async function compareAttention(options: StepBenchOptions): Promise<void> {
  if (options.model !== undefined) {
    throw new UsageError(
      `read --against-full-attention: wanted --synthetic, found --model ${options.model}; the ` +
        "other model has no weights",
    );
  }
  const name = options.synthetic ?? "48b";
  const weights = options.weights ?? "q4";
  const shape = readShape("--synthetic", name);
  const tuning = await openTuning(options.tuning);
  const measure = async (variant: ModelShape) => {
    const { model, weightBytes } = synthesize(variant, name, weights);
    return await benchDevice(options.device, model, {
      contexts: options.contexts ?? COMPARED_CONTEXTS,
      batches: [1],
      prefills: [],
      seconds: options.seconds ?? SECONDS,
      poolBytes: poolBytes(options, weightBytes),
      tuning,
    });
  };
  // One after the other: a card that holds one need not hold both.
  const hybrid = await measure(shape);
  const full = await measure(fullAttention(shape));
  const contexts = hybrid.decode.map((own, index): Comparison => {
    const other = full.decode[index]!;
    return {
      context: own.context,
      hybridMs: own.stepMs,
      fullMs: other.stepMs,
      hybridCacheBytes: own.cacheBytes,
      fullCacheBytes: other.cacheBytes,
    };
  });
  const { adapter } = hybrid;
  const report = { model: `synthetic ${name}`, weights, adapter, contexts, hybrid, full };
  console.log(options.json === true ? JSON.stringify(report) : comparisonText(report));
}

const NO_ROOM = "does not fit";

/** A table of all steps, then one of each step's kernels. */
export function stepText(report: StepBenchReport): string {
  const rate = byteText(report.loadBytesPerSecond);
  const rows: [string, string][] = [
    ["device", `${report.device}: ${report.adapter}`],
    ...(report.peak === null ? [] : [["peak", peakText(report.peak)] as [string, string]]),
    ["model", `${report.model}, weights ${report.weights}, ${byteText(report.weightBytes)}`],
    ["load", `${report.loadSeconds.toFixed(2)} s, ${rate}/s`],
    ["shaders and pools", configureText(report)],
    ["on the device", byteText(report.deviceBytes)],
    ...report.decode.map((speed): [string, string] => [
      decodeName(speed),
      decodeText(speed),
    ]),
    ...report.prefill.map(({ tokens, tokensPerSecond }): [string, string] => [
      prefillName(tokens),
      tokensPerSecond === null ? NO_ROOM : `${rounded(tokensPerSecond)} tokens/s`,
    ]),
  ];
  return [...rows.map(([name, value]) => `${name.padEnd(34)}${value}`), ...kernelTables(report)]
    .join("\n");
}

function configureText({ configureSeconds, compilation }: DeviceBenchReport): string {
  const { kernels, shaderSeconds, pipelineSeconds } = compilation;
  const [all, read, built] = [configureSeconds, shaderSeconds, pipelineSeconds]
    .map((seconds) => `${seconds.toFixed(2)} s`);
  return kernels === 0 ? all! : `${all}: ${kernels} kernels, ${read} shaders, ${built} pipelines`;
}

/** The kernels of every step that was measured, where the device can time them. */
function kernelTables({ decode, prefill }: DeviceBenchReport): string[] {
  const table = (name: string, kernels: readonly KernelTime[]) =>
    kernels.length === 0 ? [] : ["", `${name}: each kernel by itself`, ...kernelLines(kernels)];
  return [
    ...decode.flatMap((speed) => table(decodeName(speed), speed.kernels)),
    ...prefill.flatMap(({ tokens, kernels }) =>
      table(`${prefillName(tokens)}, the last step`, kernels)
    ),
  ];
}

function decodeName({ context, batch }: DecodeSpeed): string {
  return `decode, ${context.toLocaleString("en")} before, batch ${batch}`;
}

function prefillName(tokens: number): string {
  return `prefill, ${tokens.toLocaleString("en")} tokens`;
}

function decodeText({ tokensPerSecond, stepMs, dispatchesPerStep, cacheBytes }: DecodeSpeed) {
  if (tokensPerSecond === null) return `${NO_ROOM}: ${byteText(cacheBytes)} of states and latents`;
  const dispatches = dispatchesPerStep === 0 ? "" : `, ${dispatchesPerStep} dispatches`;
  return `${rounded(tokensPerSecond)} tokens/s, ${stepMs!.toFixed(2)} ms a step${dispatches}`;
}

function comparisonText(
  report: { adapter: string; model: string; weights: string; contexts: readonly Comparison[] },
): string {
  const ms = (value: number | null) => value === null ? NO_ROOM : value.toFixed(2);
  const ratio = (a: number | null, b: number | null) =>
    a === null || b === null ? "-" : (a / b).toFixed(2);
  const head = ["context", "hybrid ms", "full ms", "ratio", "hybrid cache", "full cache", "ratio"];
  const rows = report.contexts.map((row) => [
    row.context.toLocaleString("en"),
    ms(row.hybridMs),
    ms(row.fullMs),
    ratio(row.fullMs, row.hybridMs),
    byteText(row.hybridCacheBytes),
    byteText(row.fullCacheBytes),
    ratio(row.fullCacheBytes, row.hybridCacheBytes),
  ]);
  const lines = [head, ...rows].map((cells) => cells.map((cell) => cell.padStart(13)).join(""));
  return [`${report.adapter}, ${report.model}, weights ${report.weights}`, ...lines].join("\n");
}
