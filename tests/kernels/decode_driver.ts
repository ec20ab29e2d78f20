/** A small model for tests of the fused kernels, and steps of it on the webgpu device. */
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import type { Capacity, ModelShape, StepPlan } from "../../kernels/types.ts";
import { WebGpuDevice } from "../../kernels/webgpu.ts";
import { quantize } from "../reference/formats.ts";
import {
  type RandomTensors,
  randomTensors,
  tensorSpecs,
  writeTensors,
} from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { plainRows } from "../tools/logit_rows.ts";

export const SHAPE: ModelShape = {
  vocabularySize: 93,
  hiddenSize: 96,
  layers: [
    { mixer: "kda", feedForward: "dense" },
    { mixer: "mla", feedForward: "moe" },
    { mixer: "kda", feedForward: "moe" },
  ],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 2, keyDim: 32, valueDim: 64, convolutionTaps: 4 },
  mla: { headCount: 3, latentDim: 72, nopeDim: 40, sharedKeyDim: 24, valueDim: 32 },
  denseIntermediateSize: 160,
  moe: {
    expertCount: 12,
    expertsPerToken: 3,
    intermediateSize: 64,
    sharedIntermediateSize: 64,
    routedScale: 1.7,
    renormalize: true,
  },
};

const CAPACITY: Capacity = {
  slots: 8,
  pages: 128,
  pageTokens: 16,
  rows: 64,
  logitRows: 8,
  logitEdits: 4,
  sequences: 8,
  pagesPerSequence: 16,
  latentFormat: "f32",
};

export async function loaded(
  shape: ModelShape,
  tensors: RandomTensors,
  tuning?: TuningChoice,
): Promise<WebGpuDevice> {
  const device = await WebGpuDevice.create(shape, tuning);
  device.declare(tensorSpecs(tensors));
  writeTensors(device, tensors, 1 << 20);
  await device.configure(CAPACITY);
  return device;
}

export interface Part {
  readonly slot: number;
  readonly past: number;
  readonly tokens: readonly number[];
}

/** `wanted`: parts whose last rows are to have logits. */
export function planOf(parts: readonly Part[], wanted = [...parts.keys()]): StepPlan {
  let rowStart = 0;
  const sequences = parts.map(({ slot, past, tokens }) => {
    const pages = Uint32Array.from({ length: 16 }, (_, page) => 16 * slot + (page * 5) % 16);
    const sequence = { slot, rowStart, rowCount: tokens.length, past, pages };
    rowStart += tokens.length;
    return sequence;
  });
  const last = sequences.map((sequence) => sequence.rowStart + sequence.rowCount - 1);
  return {
    tokens: Uint32Array.from(parts.flatMap(({ tokens }) => tokens)),
    feeds: null,
    sequences,
    logits: plainRows(wanted.map((part) => last[part]!)),
  };
}

/** One step: the residual after each block, and the logits of the last rows of parts `wanted`. */
export async function run(
  device: WebGpuDevice,
  shape: ModelShape,
  parts: readonly Part[],
  wanted = [...parts.keys()],
  feeds: Int32Array | null = null,
) {
  device.begin({ ...planOf(parts, wanted), feeds });
  device.embed();
  const residuals: Float32Array[] = [];
  for (const [layer, { mixer, feedForward }] of shape.layers.entries()) {
    device[mixer](layer);
    residuals.push(await device.readResidual());
    device[feedForward](layer);
    residuals.push(await device.readResidual());
  }
  device.logits();
  const result = await device.finish().result();
  const logits = [];
  for (const index of wanted.keys()) logits.push((await result.readRow(index)).slice());
  return { residuals, logits };
}

/** Biases decide which experts are chosen: rounding to int8 must not flip a choice. */
export function randomModel(shape = SHAPE) {
  const random = randomSource(4_001);
  const tensors = randomTensors(shape, { format: "bf16" }, random, shape.kda.keyDim);
  for (const layer of [1, 2]) {
    const bias = Float32Array.from({ length: 12 }, (_, e) => 2 * ((5 * e + layer) % 12));
    tensors.set(`${layer}.moe.router_bias`, [quantize(bias, 1, 12, "f32")]);
  }
  return tensors;
}

/** Token ids. */
export const TEXT = Array.from({ length: 40 }, (_, i) => (i * 29 + 7) % SHAPE.vocabularySize);
