import source from "./decode_absorb.wgsl" with { type: "text" };
import { floatPieces } from "./decode_shape.ts";
import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type LatentFormat, latentQuads } from "./latent_cache.ts";
import type { Matrix } from "./matrix.ts";
import {
  ABSORB_BYTES,
  ABSORB_LANES,
  ABSORB_SEGMENTS,
  ABSORB_THREADS,
  absorbPiece,
} from "./mla_absorb.ts";
import { entryPieces } from "./mla_latent.ts";
import { readScales, readWhole } from "./scratch.ts";
import type { MlaShape } from "./types.ts";
import { type FloatFormat, SCALE_PARAMS, scaleParams, segmentCount } from "./weight_preludes.ts";

const WORKGROUP_BYTES = ABSORB_BYTES + 4 * ABSORB_THREADS;

const PARAMS = {
  head_count: "u32",
  nope_dim: "u32",
  shared_key_dim: "u32",
  value_dim: "u32",
  latent_dim: "u32",
  segments: "u32",
  head_groups: "u32",
  quads: "u32",
  page_tokens: "u32",
  query_width: "u32",
  epsilon: "f32",
  ...SCALE_PARAMS,
} as const;

export type DecodeAbsorbPipeline = Pipeline<typeof PARAMS>;

export const decodeAbsorbKernel = defineKernel({
  name: "decode_absorb",
  source,
  bindings: ["read", "read", "read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

/** `kvBFormat`: of kv_b. Throws where the adapter is too small. */
export function compileDecodeAbsorb(
  gpu: Gpu,
  kvBFormat: FloatFormat,
  latentFormat: LatentFormat,
  { nopeDim }: MlaShape,
): Promise<DecodeAbsorbPipeline> {
  checkWorkgroupMemory("decode_absorb", WORKGROUP_BYTES, gpu.limits);
  const preludes = [...floatPieces(kvBFormat), absorbPiece, ...entryPieces(latentFormat)];
  const literals = { LANE_ROWS: Math.ceil(nopeDim / ABSORB_LANES) };
  return decodeAbsorbKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeAbsorbBuffers {
  /**
   * read: queries [headCount][nopeDim + sharedKeyDim], then latent | shared key before the norm,
   * f32 [rowCount][..].
   */
  readonly projected: BufferUse;
  /** read: f32 [latentDim]. */
  readonly norm: BufferUse;
  /** read: `StepBuffers.singles` and `StepBuffers.pages`. */
  readonly rows: BufferUse;
  readonly pages: BufferUse;
  /** write: f32 [rowCount][headCount][4 quads of an entry]. */
  readonly absorbed: BufferUse;
  /** write: the layer's cache. */
  readonly latents: BufferUse;
}

/**
 * The entries of rows [0, rowCount) in the cache, and their queries against entries. `kvB`:
 * [headCount (nopeDim + valueDim), latentDim] in the pipeline's format.
 */
export function decodeAbsorb(
  recorder: Recorder,
  pipeline: DecodeAbsorbPipeline,
  kvB: Matrix,
  buffers: DecodeAbsorbBuffers,
  shape: MlaShape,
  { rowCount, pageTokens, epsilon }: {
    readonly rowCount: number;
    readonly pageTokens: number;
    readonly epsilon: number;
  },
): void {
  const { projected, norm, rows, pages, absorbed, latents } = buffers;
  const { headCount, nopeDim, sharedKeyDim, valueDim, latentDim } = shape;
  const quads = latentQuads(shape);
  const segments = segmentCount(latentDim);
  const headGroups = Math.ceil(segments / ABSORB_SEGMENTS);
  checkLoops("decode_absorb", Math.ceil((latentDim + 4 * quads) / ABSORB_THREADS) + 8);
  recorder.dispatch(
    pipeline,
    [projected, readWhole(kvB), readScales(kvB), norm, rows, pages, absorbed, latents],
    {
      head_count: headCount,
      nope_dim: nopeDim,
      shared_key_dim: sharedKeyDim,
      value_dim: valueDim,
      latent_dim: latentDim,
      segments,
      head_groups: headGroups,
      quads,
      page_tokens: pageTokens,
      query_width: headCount * (nopeDim + sharedKeyDim),
      epsilon,
      ...scaleParams(kvB.spec),
    },
    [1 + headCount * headGroups, rowCount],
  );
}
