/** What matvec.wgsl and matmul.wgsl are told: the same thing. */
import type { Matrix, MatrixPart } from "./matrix.ts";
import { SCALE_PARAMS, scaleParams, segmentCount, weightSegments } from "./weight_preludes.ts";

export const PROJECTION_PARAMS = {
  row_count: "u32",
  weight_rows: "u32",
  row_start: "u32",
  columns: "u32",
  segments: "u32",
  weight_segments: "u32",
  x_stride: "u32",
  y_stride: "u32",
  y_offset: "u32",
  accumulate: "u32",
  ...SCALE_PARAMS,
} as const;

/** Activations of a projection: f32, row-major, strides and offsets in elements. */
export interface Rows {
  /** [rowCount][xStride]; the first columns of each row are used, what follows is not read. */
  readonly x: GPUBuffer;
  readonly xStride: number;
  /** [rowCount][yStride]; columns [yOffset, yOffset + matrix rows) of each row are written. */
  readonly y: GPUBuffer;
  readonly yStride: number;
  readonly yOffset: number;
  readonly rowCount: number;
  /** Add to y instead of replacing it. */
  readonly accumulate: boolean;
}

export function projectionParams(
  { spec }: Matrix,
  part: MatrixPart,
  rows: Rows,
): { readonly [K in keyof typeof PROJECTION_PARAMS]: number } {
  return {
    row_count: rows.rowCount,
    weight_rows: part.rowCount,
    row_start: part.rowStart,
    columns: spec.columns,
    segments: segmentCount(spec.columns),
    weight_segments: weightSegments(spec),
    x_stride: rows.xStride,
    y_stride: rows.yStride,
    y_offset: rows.yOffset,
    accumulate: rows.accumulate ? 1 : 0,
    ...scaleParams(spec),
  };
}
