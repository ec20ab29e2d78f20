/** Drives the cpu device in tests. */
import { CpuDevice } from "../../wasm/cpu.ts";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { Capacity, ModelShape } from "../../wasm/cpu_types.ts";
import { type RandomTensors, tensorSpecs, writeTensors } from "../reference/random_model.ts";
import { plainRows, range, wholeRows } from "../tools/logit_rows.ts";

/** Both builds of the crate. */
export const variants: readonly CpuVariant[] = ["simd128", "relaxed-simd"];

/** Shapes that divide by nothing: every padding and tail is used. */
export const oddShape: ModelShape = {
  vocabularySize: 77,
  hiddenSize: 120,
  layers: [
    { mixer: "kda", feedForward: "dense" },
    { mixer: "mla", feedForward: "moe" },
    { mixer: "kda", feedForward: "moe" },
  ],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 3, keyDim: 24, valueDim: 40, convolutionTaps: 4 },
  mla: { headCount: 3, latentDim: 96, nopeDim: 40, sharedKeyDim: 24, valueDim: 56 },
  denseIntermediateSize: 200,
  moe: {
    expertCount: 12,
    expertsPerToken: 3,
    intermediateSize: 40,
    sharedIntermediateSize: 80,
    routedScale: 1.7,
    renormalize: true,
  },
};

/** Sizes that are not even multiples of 2. */
export const primeShape: ModelShape = {
  ...oddShape,
  vocabularySize: 31,
  hiddenSize: 37,
  kda: { headCount: 2, keyDim: 7, valueDim: 11, convolutionTaps: 3 },
  mla: { headCount: 3, latentDim: 19, nopeDim: 5, sharedKeyDim: 3, valueDim: 5 },
  denseIntermediateSize: 13,
  moe: {
    expertCount: 5,
    expertsPerToken: 2,
    intermediateSize: 9,
    sharedIntermediateSize: 0,
    routedScale: 2.446,
    renormalize: false,
  },
};

export const smallCapacity: Capacity = {
  slots: 4,
  pages: 32,
  pageTokens: 7,
  rows: 96,
  logitRows: 96,
  logitEdits: 64,
  sequences: 4,
  pagesPerSequence: 16,
  latentFormat: "f32",
};

/** A configured device that holds `tensors`, written in uneven pieces, with all its helpers. */
export async function loadDevice(
  shape: ModelShape,
  tensors: RandomTensors,
  variant: CpuVariant,
  capacity: Capacity = smallCapacity,
  threads = 1,
): Promise<CpuDevice> {
  const device = new CpuDevice(shape, variant, threads);
  device.declare(tensorSpecs(tensors));
  writeTensors(device, tensors, 1);
  await device.configure(capacity);
  while (device.helperCount < threads - 1) await new Promise((resolve) => setTimeout(resolve, 1));
  return device;
}

/** One sequence's part of a step. */
export interface Part {
  readonly slot: number;
  readonly past: number;
  readonly tokens: readonly number[];
  readonly pages: Uint32Array;
}

/** Starts a step over `parts` with the logits of every row. */
export function beginStep(device: CpuDevice, parts: readonly Part[]): void {
  let rowStart = 0;
  const sequences = parts.map(({ slot, past, tokens, pages }) => {
    const sequence = { slot, rowStart, rowCount: tokens.length, past, pages };
    rowStart += tokens.length;
    return sequence;
  });
  device.begin({
    tokens: Uint32Array.from(parts.flatMap((part) => part.tokens)),
    sequences,
    feeds: null,
    logits: plainRows(range(rowStart)),
  });
}

/** Runs the mixer, then the feed-forward block of `layer`. `each` is called after each block. */
export async function runLayer(
  device: CpuDevice,
  shape: ModelShape,
  layer: number,
  each: (name: string) => Promise<void> = async () => {},
): Promise<void> {
  const kind = shape.layers[layer]!;
  device[kind.mixer](layer);
  await each(`${layer}.${kind.mixer}`);
  device[kind.feedForward](layer);
  await each(`${layer}.${kind.feedForward}`);
}

/** Runs one whole step; the logits of every row, [rows, vocabulary], copied. */
export async function runStep(
  device: CpuDevice,
  shape: ModelShape,
  parts: readonly Part[],
  each: (name: string) => Promise<void> = async () => {},
): Promise<Float32Array> {
  beginStep(device, parts);
  device.embed();
  await each("embed");
  for (let layer = 0; layer < shape.layers.length; layer++) {
    await runLayer(device, shape, layer, each);
  }
  device.logits();
  const rows = parts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  return await wholeRows(await device.finish().result(), rows);
}
