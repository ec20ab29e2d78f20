import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type LatentFormat, latentPrelude, latentQuads } from "./latent_cache.ts";
import headReduce from "./lib/head_reduce.wgsl" with { type: "text" };
import source from "./mla_attention.wgsl" with { type: "text" };
import type { MlaShape } from "./types.ts";

const THREADS = 128;
/** Positions whose scores a workgroup holds at once. */
export const TILE_TOKENS = 256;
/** Heads of a workgroup. */
const HEADS = 4;
/** entries, scores, lane_values and corrections. */
const WORKGROUP_BYTES = 4 * (TILE_TOKENS + 4 * TILE_TOKENS + THREADS + HEADS);
/** Loop turns of a tile that do not depend on the shape. */
const TILE_TURNS = 80;

const PARAMS = {
  first_row: "u32",
  row_start: "u32",
  head_count: "u32",
  head_groups: "u32",
  quads: "u32",
  value_quads: "u32",
  page_tokens: "u32",
  split_tokens: "u32",
  splits: "u32",
  scale: "f32",
} as const;

export type MlaAttentionPipeline = Pipeline<typeof PARAMS>;

export const mlaAttentionKernel = defineKernel({
  name: "mla_attention",
  source,
  bindings: ["read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface MlaAttentionBuffers {
  /** read: [rows][headCount][quads of an entry]. */
  readonly absorbed: BufferUse;
  /** read: the layer's cache. */
  readonly latents: BufferUse;
  /** read: `StepBuffers.rows` and `StepBuffers.pages`. */
  readonly rows: BufferUse;
  readonly pages: BufferUse;
  /** write: [batch rows][splits][headCount][`valueQuads`] quads. */
  readonly sums: BufferUse;
  /** write: [batch rows][splits][headCount][2]. */
  readonly maxima: BufferUse;
}

/** Rows [rowStart, + rowCount) of those from firstRow on, and how their contexts are split. */
export interface AttentionBatch {
  readonly firstRow: number;
  readonly rowStart: number;
  readonly rowCount: number;
  readonly pageTokens: number;
  readonly splitTokens: number;
  /** Enough for the batch's last position. */
  readonly splits: number;
}

/** Quads that cover the latent without the shared key. */
export function valueQuads({ latentDim }: MlaShape): number {
  return Math.ceil(latentDim / 4);
}

/** Throws when a split of `splitTokens` positions would loop too often in one invocation. */
export function compileMlaAttention(
  gpu: Gpu,
  shape: MlaShape,
  format: LatentFormat,
  splitTokens: number,
): Promise<MlaAttentionPipeline> {
  checkWorkgroupMemory("mla_attention", WORKGROUP_BYTES, gpu.limits);
  const turns = TILE_TOKENS / THREADS * latentQuads(shape) + TILE_TURNS +
    Math.ceil(valueQuads(shape) / THREADS) * (TILE_TOKENS + 1);
  checkLoops("mla_attention", Math.ceil(splitTokens / TILE_TOKENS) * turns);
  const reduce = { name: "lib/head_reduce.wgsl", source: headReduce };
  return mlaAttentionKernel.compile(gpu, {}, [latentPrelude(format), reduce]);
}

/** A softmax over each split of each row's context. */
export function mlaAttention(
  recorder: Recorder,
  pipeline: MlaAttentionPipeline,
  buffers: MlaAttentionBuffers,
  shape: MlaShape,
  batch: AttentionBatch,
): void {
  const headGroups = Math.ceil(shape.headCount / HEADS);
  recorder.dispatch(
    pipeline,
    [
      buffers.absorbed,
      buffers.latents,
      buffers.rows,
      buffers.pages,
      buffers.sums,
      buffers.maxima,
    ],
    {
      first_row: batch.firstRow,
      row_start: batch.rowStart,
      head_count: shape.headCount,
      head_groups: headGroups,
      quads: latentQuads(shape),
      value_quads: valueQuads(shape),
      page_tokens: batch.pageTokens,
      split_tokens: batch.splitTokens,
      splits: batch.splits,
      scale: 1 / Math.sqrt(shape.nopeDim + shape.sharedKeyDim),
    },
    [batch.splits * headGroups, batch.rowCount],
  );
}
