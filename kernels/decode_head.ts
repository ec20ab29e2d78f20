import source from "./decode_head.wgsl" with { type: "text" };
import {
  compileMatrixRows,
  forRows,
  type MatrixPipeline,
  pieces,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix, scaleStride } from "./matrix.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  block_rows: "u32",
  scale_stride: "u32",
  row_offset: "u32",
  y_stride: "u32",
} as const;

export type DecodeHeadPipeline = MatrixPipeline<typeof PARAMS>;

export const decodeHeadKernel = defineKernel({
  name: "decode_head",
  source,
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

/** `columns`: the hidden size; `rowsMax`: rows of x. */
export function compileDecodeHead(
  gpu: Gpu,
  head: RowStorage,
  columns: number,
  rowsMax: number,
): Promise<DecodeHeadPipeline> {
  const preludes = [...rowPieces(head.format), ...pieces("plain_scale", "row_norm", "matrix_rows")];
  return compileMatrixRows(
    gpu,
    head,
    columns,
    rowsMax,
    (literals) => decodeHeadKernel.compile(gpu, {}, preludes, literals),
  );
}

/** y f32 [rowCount][rows of the matrix] of x, activation groups [rowCount][X_QUADS][groups]. */
export function decodeHead(
  recorder: Recorder,
  pipelines: DecodeHeadPipeline,
  matrix: Matrix,
  x: BufferUse,
  y: BufferUse,
  rowCount: number,
  epsilon: number,
): void {
  const { rows, columns } = matrix.spec;
  const { chosen: { pipeline, tile }, rowGroups } = forRows(pipelines, rowCount);
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [x, read(part.buffer, part.offset), y],
      {
        row_count: rowCount,
        groups: groupCount(columns),
        columns,
        epsilon,
        block_rows: part.rowCount,
        scale_stride: scaleStride(columns),
        row_offset: part.rowStart,
        y_stride: rows,
      },
      spread(Math.ceil(part.rowCount / tile) * rowGroups),
    );
  }
}
