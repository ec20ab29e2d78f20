import source from "./decode_attention.wgsl" with { type: "text" };
import { pieces } from "./decode_shape.ts";
import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { Tuning } from "./gpu/tuning.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type LatentFormat, latentPrelude, latentQuads } from "./latent_cache.ts";
import { valueQuads } from "./mla_attention.ts";
import type { MlaShape } from "./types.ts";

const PARAMS = {
  row_start: "u32",
  head_count: "u32",
  quads: "u32",
  value_quads: "u32",
  page_tokens: "u32",
  splits: "u32",
  scale: "f32",
} as const;

/** Slices of a head's query; a thread holds one of four heads. */
const SLICES = 32;
/** Quads of z over which a head's threads are spread. */
const VALUE_LANES = 64;
/** SPLITS and SPLIT_TOKENS_MIN of lib/decode_splits.wgsl. */
export const DECODE_SPLITS = 128;
const SPLIT_TOKENS_MIN = 32;

export interface DecodeAttentionPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  /** Of a workgroup. */
  readonly heads: number;
}

export const decodeAttentionKernel = defineKernel({
  name: "decode_attention",
  source,
  bindings: ["read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

/** Bytes of workgroup memory of a model's kernel. */
export function decodeAttentionBytes(
  shape: MlaShape,
  { heads, positions }: Tuning["attention"],
): number {
  const tileBytes = 16 * SLICES * Math.ceil(latentQuads(shape) / SLICES);
  const partialBytes = 4 * heads * (SLICES + 1);
  const scoreBytes = 4 * heads;
  const weightBytes = 4 * heads;
  return positions * (tileBytes + partialBytes + scoreBytes + weightBytes) + 4 * heads;
}

/** `tokens`: the longest context. Throws where the adapter is too small for the model. */
export async function compileDecodeAttention(
  gpu: Gpu,
  shape: MlaShape,
  format: LatentFormat,
  tokens: number,
): Promise<DecodeAttentionPipeline> {
  const quads = latentQuads(shape);
  const { heads, positions } = gpu.tuning.numbers.attention;
  const lanes = SLICES * heads / 4 / positions;
  checkWorkgroupMemory(
    "decode_attention",
    decodeAttentionBytes(shape, { heads, positions }),
    gpu.limits,
  );
  const splitTokens = Math.ceil(Math.ceil(tokens / SPLIT_TOKENS_MIN) / DECODE_SPLITS) *
    SPLIT_TOKENS_MIN;
  checkLoops("decode_attention", Math.ceil(splitTokens / positions));
  const literals = {
    POSITIONS: positions,
    HEAD_QUADS: heads / 4,
    QUAD_ROWS: Math.ceil(quads / SLICES),
    FULL_ROWS: Math.floor(quads / SLICES),
    VALUE_ROWS: Math.ceil(valueQuads(shape) / VALUE_LANES),
    LANES: lanes,
    LOADS: Math.ceil(quads / lanes),
  };
  const preludes = [latentPrelude(format), ...pieces("decode_splits", "decode_attention_tile")];
  return { pipeline: await decodeAttentionKernel.compile(gpu, {}, preludes, literals), heads };
}

export interface DecodeAttentionBuffers {
  /** read: f32 quads [rowCount][headCount][`latentQuads`]. */
  readonly absorbed: BufferUse;
  /** read: the layer's cache. */
  readonly latents: BufferUse;
  /** read: rows' table and pages of `StepBuffers`. */
  readonly rows: BufferUse;
  readonly pages: BufferUse;
  /** write: f32 quads [rowCount][splits][headCount][`valueQuads`]. */
  readonly sums: BufferUse;
  /** write: f32 [rowCount][splits][headCount][2]. */
  readonly maxima: BufferUse;
}

/** Splits that any row of a step has whose last position is `lastPosition`, at most. */
export function splitsUpTo(lastPosition: number): number {
  // A longer context has at least as many as its first part by itself.
  return Math.min(DECODE_SPLITS, Math.floor(lastPosition / SPLIT_TOKENS_MIN) + 1);
}

/** Attention of rows [rowStart, + rowCount), each over positions up to its own. */
export function decodeAttention(
  recorder: Recorder,
  { pipeline, heads }: DecodeAttentionPipeline,
  { absorbed, latents, rows, pages, sums, maxima }: DecodeAttentionBuffers,
  shape: MlaShape,
  sizes: {
    readonly rowStart: number;
    readonly rowCount: number;
    /** That no row has more of. */
    readonly splits: number;
    readonly pageTokens: number;
  },
): void {
  const { headCount, nopeDim, sharedKeyDim } = shape;
  recorder.dispatch(
    pipeline,
    [absorbed, latents, rows, pages, sums, maxima],
    {
      row_start: sizes.rowStart,
      head_count: headCount,
      quads: latentQuads(shape),
      value_quads: valueQuads(shape),
      page_tokens: sizes.pageTokens,
      splits: sizes.splits,
      scale: 1 / Math.sqrt(nopeDim + sharedKeyDim),
    },
    [sizes.splits * Math.ceil(headCount / heads), sizes.rowCount],
  );
}
