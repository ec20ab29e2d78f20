/**
 * Speed of the cpu device on random weights in kedge-tiny's shape (fp8 with 128 x 128 blocks):
 *
 *     deno run -A tests/bench/cpu_device_bench.ts [simd128|relaxed-simd] [fp8|bf16|q8|q4]
 *       [--threads N]
 *
 * Prints tokens per second of decode at batch 1 and 8 and of a prefill of 1,024 tokens in chunks of
 * 128 and 512, with the share of every kind of block. Each number is the best of several runs.
 */
import { type CpuVariant, preferredVariant } from "../../wasm/cpu_module.ts";
import { CpuDevice } from "../../wasm/cpu.ts";
import type { Capacity, ModelShape, StepPlan } from "../../wasm/cpu_types.ts";
import { randomTensors, tensorSpecs, writeTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { plainRows, range } from "../tools/logit_rows.ts";

const kda = { mixer: "kda", feedForward: "moe" } as const;
const mla = { mixer: "mla", feedForward: "moe" } as const;
const dense = { mixer: "kda", feedForward: "dense" } as const;

const tinyShape: ModelShape = {
  vocabularySize: 4096,
  hiddenSize: 384,
  layers: [dense, dense, kda, mla, kda, kda, kda, mla],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 3, keyDim: 128, valueDim: 128, convolutionTaps: 4 },
  mla: { headCount: 4, latentDim: 128, nopeDim: 64, sharedKeyDim: 32, valueDim: 64 },
  denseIntermediateSize: 1024,
  moe: {
    expertCount: 16,
    expertsPerToken: 4,
    intermediateSize: 128,
    sharedIntermediateSize: 128,
    routedScale: 2.446,
    renormalize: true,
  },
};

const capacity: Capacity = {
  slots: 8,
  pages: 256,
  pageTokens: 64,
  rows: 512,
  logitRows: 8,
  logitEdits: 64,
  sequences: 8,
  pagesPerSequence: 32,
  latentFormat: "f16",
};

const random = randomSource(7);

/** A step over `count` sequences of `rows` rows each, with the logits of each one's last row. */
function plan(count: number, rows: number, past: number): StepPlan {
  return {
    tokens: Uint32Array.from({ length: count * rows }, () => Math.floor(random() * 4096)),
    sequences: Array.from({ length: count }, (_, slot) => ({
      slot,
      rowStart: slot * rows,
      rowCount: rows,
      past,
      pages: Uint32Array.from({ length: 32 }, (_, page) => slot * 32 + page),
    })),
    feeds: null,
    logits: plainRows(range(count).map((i) => (i + 1) * rows - 1)),
  };
}

/** Milliseconds by kind of block. */
type Times = Map<string, number>;

async function step(device: CpuDevice, plan: StepPlan, times: Times): Promise<void> {
  const timed = <T>(name: string, run: () => T): T => {
    const start = performance.now();
    const result = run();
    times.set(name, (times.get(name) ?? 0) + performance.now() - start);
    return result;
  };
  timed("begin", () => device.begin(plan));
  timed("embed", () => device.embed());
  tinyShape.layers.forEach((layer, index) => {
    timed(layer.mixer, () => device[layer.mixer](index));
    timed(layer.feedForward, () => device[layer.feedForward](index));
  });
  timed("logits", () => device.logits());
  await timed("finish", () => device.finish().result());
}

/** Runs `steps` steps `repeats` times and prints the best run. */
async function measure(
  name: string,
  device: CpuDevice,
  repeats: number,
  steps: readonly StepPlan[],
): Promise<void> {
  const tokens = steps.reduce((sum, step) => sum + step.tokens.length, 0);
  let best = Infinity;
  let bestTimes: Times = new Map();
  for (let repeat = 0; repeat < repeats; repeat++) {
    const times: Times = new Map();
    const start = performance.now();
    for (const plan of steps) await step(device, plan, times);
    const elapsed = performance.now() - start;
    if (elapsed < best) [best, bestTimes] = [elapsed, times];
  }
  const rate = (tokens / best * 1000).toFixed(0);
  const shares = [...bestTimes].map(([block, ms]) => `${block} ${(ms / best * 100).toFixed(0)} %`);
  const perToken = (best / tokens * 1000).toFixed(0);
  console.log(`${name.padEnd(26)} ${rate.padStart(6)} tokens/s  ${perToken} us/token`);
  console.log(`${"".padEnd(26)} ${shares.join(", ")}`);
}

const variant = Deno.args.find((arg) => arg === "simd128" || arg === "relaxed-simd");
const format = (["bf16", "q8", "q4"] as const).find((name) => Deno.args.includes(name)) ?? "fp8";
const threads = Deno.args.includes("--threads")
  ? Number(Deno.args[Deno.args.indexOf("--threads") + 1])
  : navigator.hardwareConcurrency;
const tensors = randomTensors(tinyShape, { format }, random, 128);
const device = new CpuDevice(tinyShape, (variant as CpuVariant) ?? preferredVariant(), threads);
device.declare(tensorSpecs(tensors));
const start = performance.now();
writeTensors(device, tensors, 1 << 20);
await device.configure(capacity);
while (device.helperCount < threads - 1) await new Promise((resolve) => setTimeout(resolve, 1));
const loadMs = (performance.now() - start).toFixed(0);
console.log(`${device.description}, ${format}, ${device.allocatedBytes} bytes, load ${loadMs} ms`);

await measure("decode, batch 1", device, 8, range(128).map((i) => plan(1, 1, i)));
await measure("decode, batch 8", device, 5, range(64).map((i) => plan(8, 1, i)));
await measure("prefill 1024 by 128", device, 4, range(8).map((i) => plan(1, 128, i * 128)));
await measure("prefill 1024 by 512", device, 4, range(2).map((i) => plan(1, 512, i * 512)));
device.destroy();
