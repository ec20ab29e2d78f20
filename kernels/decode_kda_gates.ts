import source from "./decode_kda_gates.wgsl" with { type: "text" };
import { floatPieces, pieces } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import { kdaWidths } from "./kda_shape.ts";
import { onlyPart } from "./scratch.ts";
import type { KdaShape } from "./types.ts";
import { type FloatFormat, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  row_count: "u32",
  mixed_stride: "u32",
  low_start: "u32",
  keys: "u32",
  values: "u32",
  key_tiles: "u32",
  gate_start: "u32",
  bias_start: "u32",
} as const;

/** Threads that share a row of weights: the order of the sums is theirs. */
export const LOW_LANES = 8;
const THREADS = 128;
/** Rows of x that one workgroup takes; times ROWS a multiple of LOW_LANES. */
const X_ROWS = 8;
/** Rows of weights that one thread takes. */
const ROWS = 2;
/** Rows of weights that one workgroup takes. */
const TILE = THREADS / LOW_LANES * ROWS;

export type DecodeKdaGatesPipeline = Pipeline<typeof PARAMS>;

export const decodeKdaGatesKernel = defineKernel({
  name: "decode_kda_gates",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

/** Bytes of workgroup memory for f_b and g_b of so many columns. */
export function decodeKdaGatesBytes(ranks: readonly [number, number]): number {
  const segments = Math.max(...segmentsOf(ranks));
  return 80 * X_ROWS * segments + 4 * LOW_LANES * (X_ROWS * TILE + 4);
}

/** Segments of a row of f_b and of g_b. */
export function segmentsOf(ranks: readonly [number, number]): [number, number] {
  // A model without KDA layers has no ranks, and arrays of WGSL no zero size.
  const [rank, gate] = ranks.map((columns) => Math.max(1, segmentCount(columns)));
  return [rank!, gate!];
}

/** `format` and `ranks`, columns: of f_b and g_b. */
export function compileDecodeKdaGates(
  gpu: Gpu,
  format: FloatFormat,
  keyDim: number,
  ranks: readonly [number, number],
): Promise<DecodeKdaGatesPipeline> {
  const preludes = [...floatPieces(format), ...pieces("sigmoid", "softplus", "low_rank")];
  const [rankSegments, gateSegments] = segmentsOf(ranks);
  const segments = Math.max(rankSegments, gateSegments);
  const literals = {
    LOW_LANES,
    THREADS,
    KEY_DIM: keyDim,
    X_ROWS,
    ROWS,
    RANK_SEGMENTS: rankSegments,
    GATE_SEGMENTS: gateSegments,
    SEGMENTS: segments,
    STEPS: Math.ceil(segments / LOW_LANES),
    RESULTS: TILE * X_ROWS / THREADS,
  };
  return decodeKdaGatesKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeKdaGatesBuffers {
  /** read: f32 [rowCount][q | k | v | f_a | g_a | b], as decode_kda_in writes it. */
  readonly mixed: BufferUse;
  /** write: f32 [rowCount][retentions [headCount keyDim] | gates [headCount valueDim]]. */
  readonly gates: BufferUse;
}

/** Retentions, and output gates after their sigmoid, of rows [0, rowCount) of `mixed`. */
export function decodeKdaGates(
  recorder: Recorder,
  pipeline: DecodeKdaGatesPipeline,
  weights: Pick<KdaWeights, "fB" | "gB" | "aLog" | "dtBias">,
  { mixed, gates }: DecodeKdaGatesBuffers,
  shape: KdaShape,
  rowCount: number,
): void {
  const [fB, gB] = [onlyPart(weights.fB), onlyPart(weights.gB)];
  const [aLog, dtBias] = [onlyPart(weights.aLog), onlyPart(weights.dtBias)];
  const [rank, gateRank] = [weights.fB.spec.columns, weights.gB.spec.columns];
  const segmentBytes = weights.fB.strideBytes / segmentCount(rank);
  const { keys, values, mixed: channels } = kdaWidths(shape);
  const keyTiles = Math.ceil(keys / TILE);
  recorder.dispatch(
    pipeline,
    [mixed, read(fB.buffer), read(aLog.buffer), gates],
    {
      row_count: rowCount,
      mixed_stride: channels + rank + gateRank + shape.headCount,
      low_start: channels,
      keys,
      values,
      key_tiles: keyTiles,
      gate_start: (gB.offset - fB.offset) / segmentBytes,
      bias_start: (dtBias.offset - aLog.offset) / 4,
    },
    [Math.ceil(rowCount / X_ROWS), keyTiles + Math.ceil(values / TILE)],
  );
}
