/** What expert_matvec.wgsl and expert_matmul.wgsl are told: the same thing. */
import { read, type Recorder, write } from "./gpu/recorder.ts";
import type { Pipeline } from "./gpu/kernel.ts";
import type { Matrix } from "./matrix.ts";
import { readScales } from "./scratch.ts";
import { SCALE_PARAMS, scaleParams, segmentCount, weightSegments } from "./weight_preludes.ts";

export const EXPERT_PARAMS = {
  weight_rows: "u32",
  row_start: "u32",
  columns: "u32",
  segments: "u32",
  weight_segments: "u32",
  x_stride: "u32",
  y_stride: "u32",
  y_offset: "u32",
  matrix_start: "u32",
  matrix_count: "u32",
  pairs_per_x_row: "u32",
  ...SCALE_PARAMS,
} as const;

/** Activations of experts: f32, row-major, strides and offsets in elements. */
export interface ExpertRows {
  /** [pairs / pairsPerXRow][xStride]. */
  readonly x: GPUBuffer;
  readonly xStride: number;
  /** Choices per token where x has a row a token; 1 where x has a row a pair. */
  readonly pairsPerXRow: number;
  /** [pairs][yStride]; columns [yOffset, yOffset + matrix rows) of each row are written. */
  readonly y: GPUBuffer;
  readonly yStride: number;
  readonly yOffset: number;
  /** From `groupTokens`. */
  readonly tiles: GPUBuffer;
  readonly order: GPUBuffer;
  readonly pairCount: number;
  /** Tiles to dispatch; empty ones end at once. */
  readonly tileLimit: number;
}

/** Records a dispatch for each part; `groups`: workgroups [x, y] that cover a part's rows. */
export function dispatchExperts(
  recorder: Recorder,
  pipeline: Pipeline<typeof EXPERT_PARAMS>,
  matrix: Matrix,
  rows: ExpertRows,
  groups: (weightRows: number) => readonly [number, number],
): void {
  const { spec } = matrix;
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [
        read(rows.x),
        read(part.buffer),
        readScales(matrix),
        read(rows.tiles),
        read(rows.order),
        write(rows.y),
      ],
      {
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        columns: spec.columns,
        segments: segmentCount(spec.columns),
        weight_segments: weightSegments(spec),
        x_stride: rows.xStride,
        y_stride: rows.yStride,
        y_offset: rows.yOffset,
        matrix_start: part.matrixStart,
        matrix_count: part.matrixCount,
        pairs_per_x_row: rows.pairsPerXRow,
        ...scaleParams(spec),
      },
      [...groups(part.rowCount), rows.tileLimit],
    );
  }
}
