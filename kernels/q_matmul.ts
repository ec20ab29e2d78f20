import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import type { QTile } from "./gpu/tuning.ts";
import { groupCount, type Matrix } from "./matrix.ts";
import source from "./q_matmul.wgsl" with { type: "text" };
import {
  checkQTileLoops,
  type GroupedFormat,
  qTileConstants,
  qTilePreludes,
  qTileRows,
} from "./q_tile.ts";
import { type QuantizedRows, stepCount } from "./quantize_rows.ts";

const PARAMS = {
  row_count: "u32",
  weight_rows: "u32",
  row_start: "u32",
  groups: "u32",
  steps: "u32",
  y_stride: "u32",
  y_offset: "u32",
  accumulate: "u32",
} as const;

/** A pipeline and the tile it was made for. */
export interface QMatmulPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  readonly tile: QTile;
}

export const qMatmulKernel = defineKernel({
  name: "q_matmul",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export async function compileQMatmul(
  gpu: Gpu,
  format: GroupedFormat,
  tile: QTile,
): Promise<QMatmulPipeline> {
  const constants = qTileConstants(gpu, "q_matmul", format, tile);
  return { pipeline: await qMatmulKernel.compile(gpu, constants, qTilePreludes(format)), tile };
}

/** Where the products go: f32 [rowCount][yStride], columns [yOffset, + matrix rows). */
export interface QTarget {
  readonly y: GPUBuffer;
  readonly yStride: number;
  readonly yOffset: number;
  /** Add to y instead of replacing it. */
  readonly accumulate: boolean;
}

/** y (+)= W x for a matrix in the pipeline's format and x rounded to int8. */
export function qMatmul(
  recorder: Recorder,
  { pipeline, tile }: QMatmulPipeline,
  matrix: Matrix,
  x: QuantizedRows,
  rowCount: number,
  { y, yStride, yOffset, accumulate }: QTarget,
): void {
  const { columns } = matrix.spec;
  checkQTileLoops("q_matmul", columns);
  const rows = qTileRows(tile);
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [read(x.words), read(x.scales), read(part.buffer), write(y)],
      {
        row_count: rowCount,
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        groups: groupCount(columns),
        steps: stepCount(columns),
        y_stride: yStride,
        y_offset: yOffset,
        accumulate: accumulate ? 1 : 0,
      },
      [...spread(Math.ceil(part.rowCount / rows.weights)), Math.ceil(rowCount / rows.x)],
    );
  }
}
