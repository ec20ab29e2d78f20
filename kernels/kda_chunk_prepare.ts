import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import source from "./kda_chunk_prepare.wgsl" with { type: "text" };
import { kdaWidths } from "./kda_shape.ts";
import columns from "./lib/kda_columns.wgsl" with { type: "text" };
import type { KdaShape } from "./types.ts";

const THREADS = 64;
/** Threads that share a pair of rows. */
const PARTS = 4;
/** kk_parts, qk_parts and lower. */
const WORKGROUP_BYTES = 4 * (1024 + 1024 + 256);

const PARAMS = {
  head_count: "u32",
  key_dim: "u32",
  value_dim: "u32",
  mixed_stride: "u32",
} as const;

export type KdaChunkPreparePipeline = Pipeline<typeof PARAMS>;

export const kdaChunkPrepareKernel = defineKernel({
  name: "kda_chunk_prepare",
  source,
  preludes: [{ name: "lib/kda_columns.wgsl", source: columns }],
  bindings: ["read", "read", "write", "write", "write", "write"],
  params: PARAMS,
});

export interface KdaChunkPrepareBuffers {
  /** read: [rows][headCount]. */
  readonly beta: BufferUse;
  /** read: `StepBuffers.chunks`. */
  readonly chunks: BufferUse;
  /** write: q | k | v after kda_gate in; decayed queries | keys that remain | U out. */
  readonly mixed: BufferUse;
  /** write: retentions in, W out; [rows][headCount][keyDim]. */
  readonly retention: BufferUse;
  /** write: [chunks][headCount][16][16]. */
  readonly scores: BufferUse;
  /** write: [chunks][headCount][keyDim]. */
  readonly kept: BufferUse;
}

export function compileKdaChunkPrepare(gpu: Gpu): Promise<KdaChunkPreparePipeline> {
  checkWorkgroupMemory("kda_chunk_prepare", WORKGROUP_BYTES, gpu.limits);
  return kdaChunkPrepareKernel.compile(gpu);
}

/** What the first `chunkCount` chunks need before the state comes in. Other rows are untouched. */
export function kdaChunkPrepare(
  recorder: Recorder,
  pipeline: KdaChunkPreparePipeline,
  buffers: KdaChunkPrepareBuffers,
  shape: KdaShape,
  chunkCount: number,
): void {
  const { headCount, keyDim, valueDim } = shape;
  const turns = Math.ceil(keyDim / PARTS) + Math.ceil((keyDim + valueDim) / THREADS);
  checkLoops("kda_chunk_prepare", turns);
  recorder.dispatch(
    pipeline,
    [
      buffers.beta,
      buffers.chunks,
      buffers.mixed,
      buffers.retention,
      buffers.scores,
      buffers.kept,
    ],
    {
      head_count: headCount,
      key_dim: keyDim,
      value_dim: valueDim,
      mixed_stride: kdaWidths(shape).mixed,
    },
    [headCount, chunkCount],
  );
}
