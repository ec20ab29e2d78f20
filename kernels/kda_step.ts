import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { kdaWidths } from "./kda_shape.ts";
import source from "./kda_step.wgsl" with { type: "text" };
import type { KdaShape } from "./types.ts";

const THREADS = 128;
/** Value channels of one workgroup. */
const COLUMNS = 32;
/** Threads that share a column. */
const PARTS = 4;

const PARAMS = {
  head_count: "u32",
  value_dim: "u32",
  mixed_stride: "u32",
  chunk_start: "u32",
  slices: "u32",
} as const;

export type KdaStepPipeline = Pipeline<typeof PARAMS>;

export const kdaStepKernel = defineKernel({
  name: "kda_step",
  source,
  bindings: ["read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface KdaStepBuffers {
  /** read: q | k | v after kda_gate, [rows][2 keys + values]. */
  readonly mixed: BufferUse;
  /** read: [rows][headCount][keyDim]. */
  readonly retention: BufferUse;
  /** read: [rows][headCount]. */
  readonly beta: BufferUse;
  /** read: `StepBuffers.chunks`. */
  readonly chunks: BufferUse;
  /** write: [slots][headCount][keyDim][valueDim], advances by one token. */
  readonly state: BufferUse;
  /** write: [rows][headCount][valueDim]. */
  readonly o: BufferUse;
}

/** Throws when a head's keys do not fit workgroup memory. */
export function compileKdaStep(gpu: Gpu, keyDim: number): Promise<KdaStepPipeline> {
  checkWorkgroupMemory("kda_step", 4 * (3 * keyDim + 2 * THREADS), gpu.limits);
  return kdaStepKernel.compile(gpu, { KEY_DIM: keyDim });
}

/** One token for the `decodeCount` sequences whose entries in `chunks` begin at `chunkStart`. */
export function kdaStep(
  recorder: Recorder,
  pipeline: KdaStepPipeline,
  buffers: KdaStepBuffers,
  shape: KdaShape,
  chunkStart: number,
  decodeCount: number,
): void {
  const { headCount, keyDim, valueDim } = shape;
  checkLoops("kda_step", 2 * Math.ceil(keyDim / PARTS) + Math.ceil(keyDim / THREADS));
  const slices = Math.ceil(valueDim / COLUMNS);
  recorder.dispatch(
    pipeline,
    [
      buffers.mixed,
      buffers.retention,
      buffers.beta,
      buffers.chunks,
      buffers.state,
      buffers.o,
    ],
    {
      head_count: headCount,
      value_dim: valueDim,
      mixed_stride: kdaWidths(shape).mixed,
      chunk_start: chunkStart,
      slices,
    },
    [headCount * slices, decodeCount],
  );
}
