import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import source from "./kda_chunk_scan.wgsl" with { type: "text" };
import { kdaWidths } from "./kda_shape.ts";
import tiles from "./lib/kda_scan_tiles.wgsl" with { type: "text" };
import { CHUNK_ROWS } from "./step_buffers.ts";
import type { KdaShape } from "./types.ts";

/** Value channels of one workgroup. */
const COLUMNS = 16;
/** Threads that share a column. */
const PARTS = 8;
const THREADS = COLUMNS * PARTS;
/** `parts` and `values`, beside the two tiles of rows. */
const WORKGROUP_BYTES = 4 * (2_048 + 256);

const PARAMS = {
  head_count: "u32",
  key_dim: "u32",
  value_dim: "u32",
  mixed_stride: "u32",
  slices: "u32",
} as const;

export type KdaChunkScanPipeline = Pipeline<typeof PARAMS>;

export const kdaChunkScanKernel = defineKernel({
  name: "kda_chunk_scan",
  source,
  preludes: [{ name: "lib/kda_scan_tiles.wgsl", source: tiles }],
  bindings: ["read", "read", "read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface KdaChunkScanBuffers {
  /** read: what kda_chunk_prepare left, with `w` in the place of the retentions. */
  readonly mixed: BufferUse;
  readonly w: BufferUse;
  readonly scores: BufferUse;
  readonly kept: BufferUse;
  /** read: `StepBuffers.chunks` and `StepBuffers.prefills`. */
  readonly chunks: BufferUse;
  readonly prefills: BufferUse;
  /** write: [slots][headCount][keyDim][valueDim], advances by the sequences' rows. */
  readonly state: BufferUse;
  /** write: [rows][headCount][valueDim]. */
  readonly o: BufferUse;
}

/** Throws when a sequence of `rows` rows would loop too often in one invocation. */
export function compileKdaChunkScan(
  gpu: Gpu,
  { keyDim }: KdaShape,
  rows: number,
): Promise<KdaChunkScanPipeline> {
  const partQuads = Math.ceil(Math.ceil(keyDim / 4) / PARTS);
  const keyQuads = PARTS * partQuads;
  const tileBytes = 16 * CHUNK_ROWS * keyQuads;
  checkWorkgroupMemory("kda_chunk_scan", WORKGROUP_BYTES + 2 * tileBytes, gpu.limits);
  checkLoops("kda_chunk_scan", Math.ceil(rows / CHUNK_ROWS));
  const literals = {
    PART_QUADS: partQuads,
    KEY_QUADS: keyQuads,
    LOADS: Math.ceil(tileBytes / 4 / THREADS),
  };
  return kdaChunkScanKernel.compile(gpu, {}, undefined, literals);
}

/** Outputs and new states of the step's `prefillCount` sequences with several rows. */
export function kdaChunkScan(
  recorder: Recorder,
  pipeline: KdaChunkScanPipeline,
  buffers: KdaChunkScanBuffers,
  shape: KdaShape,
  prefillCount: number,
): void {
  const { headCount, keyDim, valueDim } = shape;
  const slices = Math.ceil(valueDim / COLUMNS);
  recorder.dispatch(
    pipeline,
    [
      buffers.mixed,
      buffers.w,
      buffers.scores,
      buffers.kept,
      buffers.chunks,
      buffers.prefills,
      buffers.state,
      buffers.o,
    ],
    {
      head_count: headCount,
      key_dim: keyDim,
      value_dim: valueDim,
      mixed_stride: kdaWidths(shape).mixed,
      slices,
    },
    [headCount * slices, prefillCount],
  );
}
