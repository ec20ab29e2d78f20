import source from "./decode_kda_in.wgsl" with { type: "text" };
import {
  compileMatrixRows,
  floatPieces,
  floatRowLiterals,
  forRows,
  type MatrixPipeline,
  pieces,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import { groupCount, scaleStride } from "./matrix.ts";
import { onlyPart } from "./scratch.ts";
import type { KdaShape } from "./types.ts";
import { type FloatFormat, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  block_rows: "u32",
  scale_stride: "u32",
  float_tiles: "u32",
  segments: "u32",
  rank_rows: "u32",
  gate_rows: "u32",
  low_rows: "u32",
  g_a_start: "u32",
  b_start: "u32",
  tap_stride: "u32",
  k_taps: "u32",
  v_taps: "u32",
  keys: "u32",
} as const;

/** Rows of the float matrix that one workgroup takes. */
export const IN_FLOAT_TILE = 4;

export type DecodeKdaInPipeline = MatrixPipeline<typeof PARAMS>;

export const decodeKdaInKernel = defineKernel({
  name: "decode_kda_in",
  source,
  bindings: ["read", "read", "read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

/**
 * For a W_qkv stored like this and float f_a, g_a, b; `columns`: the hidden size; `rowsMax`: rows
 * of x.
 */
export function compileDecodeKdaIn(
  gpu: Gpu,
  qkv: RowStorage,
  lowFormat: FloatFormat,
  columns: number,
  { convolutionTaps }: KdaShape,
  rowsMax: number,
): Promise<DecodeKdaInPipeline> {
  const preludes = [
    ...rowPieces(qkv.format),
    ...floatPieces(lowFormat),
    ...pieces("plain_scale", "row_norm", "matrix_rows", "float_rows", "decode_in", "sigmoid"),
  ];
  const own = { ...floatRowLiterals(columns), KEPT: convolutionTaps - 1 };
  return compileMatrixRows(
    gpu,
    qkv,
    columns,
    rowsMax,
    (literals) => decodeKdaInKernel.compile(gpu, {}, preludes, { ...literals, ...own }),
  );
}

export interface DecodeKdaInBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** read: f32 [rowCount][hidden]. */
  readonly scaled: BufferUse;
  /** read: `StepBuffers.singles`. */
  readonly rows: BufferUse;
  /** write: f32 [slots][taps - 1][q | k | v]. */
  readonly tails: BufferUse;
  /** write: f32 [rowCount][q | k | v | f_a | g_a | b]. */
  readonly out: BufferUse;
}

/** Rows [0, rowCount) of `x`; f_a, g_a, b and the convolutions share their buffers. */
export function decodeKdaIn(
  recorder: Recorder,
  pipelines: DecodeKdaInPipeline,
  weights: KdaWeights,
  { x, scaled, rows, tails, out }: DecodeKdaInBuffers,
  shape: KdaShape,
  { rowCount, epsilon }: {
    readonly rowCount: number;
    readonly epsilon: number;
  },
): void {
  const qkv = weights.qkv[0]!;
  const { columns, rows: blockRows } = qkv.spec;
  const [fA, gA, b] = [weights.fA, weights.gA, weights.b].map(onlyPart);
  const [qTaps, kTaps, vTaps] = [weights.qConv, weights.kConv, weights.vConv].map(onlyPart);
  const segments = segmentCount(columns);
  const segmentBytes = weights.fA.strideBytes / segments;
  const lowRows = fA!.rowCount + gA!.rowCount + b!.rowCount;
  const floatTiles = Math.ceil(lowRows / IN_FLOAT_TILE);
  const { chosen, rowGroups } = forRows(pipelines, rowCount);
  recorder.dispatch(
    chosen.pipeline,
    [
      x,
      scaled,
      read(qkv.parts[0]!.buffer),
      read(fA!.buffer),
      read(qTaps!.buffer),
      rows,
      tails,
      out,
    ],
    {
      row_count: rowCount,
      groups: groupCount(columns),
      columns,
      epsilon,
      block_rows: blockRows,
      scale_stride: scaleStride(columns),
      float_tiles: floatTiles,
      segments,
      rank_rows: fA!.rowCount,
      gate_rows: gA!.rowCount,
      low_rows: lowRows,
      g_a_start: (gA!.offset - fA!.offset) / segmentBytes,
      b_start: (b!.offset - fA!.offset) / segmentBytes,
      tap_stride: weights.qConv.stride,
      k_taps: (kTaps!.offset - qTaps!.offset) / 4,
      v_taps: (vTaps!.offset - qTaps!.offset) / 4,
      keys: shape.headCount * shape.keyDim,
    },
    [(floatTiles + Math.ceil(blockRows / chosen.tile)) * rowGroups],
  );
}
