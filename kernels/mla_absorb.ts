import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline, type Prelude } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import { latentQuads } from "./latent_cache.ts";
import querySource from "./lib/absorbed_query.wgsl" with { type: "text" };
import type { Matrix } from "./matrix.ts";
import source from "./mla_absorb.wgsl" with { type: "text" };
import { readScales } from "./scratch.ts";
import type { MlaShape, WeightFormat } from "./types.ts";
import {
  SCALE_PARAMS,
  scaleParams,
  segmentCount,
  weightPreludes,
  weightSegments,
} from "./weight_preludes.ts";

/** Constants of lib/absorbed_query.wgsl. */
export const ABSORB_THREADS = 128;
/** Threads that share a segment. */
export const ABSORB_LANES = 16;
/** Segments of 16 latent channels in a workgroup. */
export const ABSORB_SEGMENTS = 8;
export const ABSORB_BYTES = 4 * 2_048;
export const absorbPiece: Prelude = { name: "lib/absorbed_query.wgsl", source: querySource };

const PARAMS = {
  head_count: "u32",
  nope_dim: "u32",
  shared_key_dim: "u32",
  value_dim: "u32",
  latent_dim: "u32",
  segments: "u32",
  weight_segments: "u32",
  absorbed_stride: "u32",
  weight_rows: "u32",
  row_start: "u32",
  first_row: "u32",
  head_groups: "u32",
  ...SCALE_PARAMS,
} as const;

export type MlaAbsorbPipeline = Pipeline<typeof PARAMS>;

export const mlaAbsorbKernel = defineKernel({
  name: "mla_absorb",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export function compileMlaAbsorb(gpu: Gpu, format: WeightFormat): Promise<MlaAbsorbPipeline> {
  checkWorkgroupMemory("mla_absorb", ABSORB_BYTES, gpu.limits);
  return mlaAbsorbKernel.compile(gpu, {}, [...weightPreludes(format), absorbPiece]);
}

/**
 * Of rows [start, + count): queries (read: [rows][headCount][nopeDim + sharedKeyDim]) turned into
 * queries against cache entries (write: [rows][headCount][4 quads of an entry]). `kvB`: [headCount
 * (nopeDim + valueDim), latentDim], in the pipeline's format.
 */
export function mlaAbsorb(
  recorder: Recorder,
  pipeline: MlaAbsorbPipeline,
  kvB: Matrix,
  queries: BufferUse,
  absorbed: BufferUse,
  shape: MlaShape,
  rows: { readonly start: number; readonly count: number },
): void {
  const { headCount, nopeDim, sharedKeyDim, valueDim, latentDim } = shape;
  const segments = segmentCount(latentDim);
  const absorbedStride = 4 * latentQuads(shape);
  const turns = Math.ceil(nopeDim / ABSORB_LANES) +
    Math.ceil(absorbedStride / ABSORB_THREADS) + ABSORB_LANES;
  checkLoops("mla_absorb", turns);
  const headGroups = Math.ceil(segments / ABSORB_SEGMENTS);
  for (const part of kvB.parts) {
    recorder.dispatch(
      pipeline,
      [queries, read(part.buffer), readScales(kvB), absorbed],
      {
        head_count: headCount,
        nope_dim: nopeDim,
        shared_key_dim: sharedKeyDim,
        value_dim: valueDim,
        latent_dim: latentDim,
        segments,
        weight_segments: weightSegments(kvB.spec),
        absorbed_stride: absorbedStride,
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        first_row: rows.start,
        head_groups: headGroups,
        ...scaleParams(kvB.spec),
      },
      [headCount * headGroups, rows.count],
    );
  }
}
