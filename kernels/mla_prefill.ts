import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { latentQuads } from "./latent_cache.ts";
import loadsSource from "./lib/mla_loads.wgsl" with { type: "text" };
import rowsSource from "./lib/mla_rows.wgsl" with { type: "text" };
import tileSource from "./lib/mla_tile.wgsl" with { type: "text" };
import source from "./mla_prefill.wgsl" with { type: "text" };
import type { MlaShape } from "./types.ts";

/** Positions of a tile; blocks of context begin at multiples of it. */
export const PREFILL_TILE_TOKENS = 64;
/** Rows of a workgroup. */
const ROWS = 64;
/** Value channels that one quad a lane covers. */
const QUAD_CHANNELS = 64;
/** Channels of keys or positions of values that are brought into workgroup memory at once. */
const PIECE = 16;
/** Loop turns of a tile that do not depend on the shape. */
const TILE_TURNS = 70;

const PARAMS = {
  row_start: "u32",
  row_count: "u32",
  past: "u32",
  block_start: "u32",
  block_count: "u32",
  head_count: "u32",
  nope_dim: "u32",
  shared_key_dim: "u32",
  value_dim: "u32",
  latent_dim: "u32",
  entry_stride: "u32",
  scale: "f32",
} as const;

export type MlaPrefillPipeline = Pipeline<typeof PARAMS>;

export const mlaPrefillKernel = defineKernel({
  name: "mla_prefill",
  source,
  preludes: [
    { name: "lib/mla_loads.wgsl", source: loadsSource },
    { name: "lib/mla_rows.wgsl", source: rowsSource },
    { name: "lib/mla_tile.wgsl", source: tileSource },
  ],
  bindings: ["read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface MlaPrefillBuffers {
  /** read: [rows][headCount][nopeDim + sharedKeyDim]. */
  readonly queries: BufferUse;
  /** read: [blockCount][headCount][nopeDim + valueDim], kv_b of the block's latents. */
  readonly expanded: BufferUse;
  /** read: what `mlaGather` left. */
  readonly entries: BufferUse;
  /** write: [rows][headCount][valueDim]. */
  readonly o: BufferUse;
  /** write: [rows][headCount][2]. */
  readonly maxima: BufferUse;
}

/** Rows [rowStart, + rowCount) of one sequence, at positions from `past` on, and a block. */
export interface PrefillBlock {
  readonly rowStart: number;
  readonly rowCount: number;
  readonly past: number;
  /** A multiple of `PREFILL_TILE_TOKENS`; blocks of a context come in order. */
  readonly blockStart: number;
  readonly blockCount: number;
}

/** Throws when the adapter's workgroup memory does not hold tiles of such values. */
export function compileMlaPrefill(gpu: Gpu, shape: MlaShape): Promise<MlaPrefillPipeline> {
  const valueQuads = Math.ceil(shape.valueDim / QUAD_CHANNELS);
  if (valueQuads > 4) {
    throw new Error(
      `compile "mla_prefill": wanted at most ${4 * QUAD_CHANNELS} value channels a head, ` +
        `found ${shape.valueDim}`,
    );
  }
  // Queries and keys, or values.
  const tileQuads = Math.max(8 * ROWS, valueQuads * PIECE * PIECE);
  checkWorkgroupMemory("mla_prefill", 16 * (tileQuads + 1024) + 4 * (1024 + 3 * ROWS), gpu.limits);
  return mlaPrefillKernel.compile(gpu, { VALUE_QUADS: valueQuads, TILE_QUADS: tileQuads });
}

/** The rows' attention, once all blocks up to their positions have gone through. */
export function mlaPrefill(
  recorder: Recorder,
  pipeline: MlaPrefillPipeline,
  buffers: MlaPrefillBuffers,
  shape: MlaShape,
  block: PrefillBlock,
): void {
  const { headCount, nopeDim, sharedKeyDim, valueDim, latentDim } = shape;
  const turns = Math.ceil((nopeDim + sharedKeyDim) / PIECE) + TILE_TURNS;
  checkLoops("mla_prefill", Math.ceil(block.blockCount / PREFILL_TILE_TOKENS) * turns);
  recorder.dispatch(
    pipeline,
    [buffers.queries, buffers.expanded, buffers.entries, buffers.o, buffers.maxima],
    {
      row_start: block.rowStart,
      row_count: block.rowCount,
      past: block.past,
      block_start: block.blockStart,
      block_count: block.blockCount,
      head_count: headCount,
      nope_dim: nopeDim,
      shared_key_dim: sharedKeyDim,
      value_dim: valueDim,
      latent_dim: latentDim,
      entry_stride: 4 * latentQuads(shape),
      scale: 1 / Math.sqrt(nopeDim + sharedKeyDim),
    },
    [Math.ceil(block.rowCount / ROWS), headCount],
  );
}
