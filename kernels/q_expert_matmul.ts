import type { ExpertRows } from "./expert_params.ts";
import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import type { QTile } from "./gpu/tuning.ts";
import { groupCount, type Matrix } from "./matrix.ts";
import source from "./q_expert_matmul.wgsl" with { type: "text" };
import {
  checkQTileLoops,
  type GroupedFormat,
  qTileConstants,
  qTilePreludes,
  qTileRows,
} from "./q_tile.ts";
import { type QuantizedRows, stepCount } from "./quantize_rows.ts";

const PARAMS = {
  weight_rows: "u32",
  row_start: "u32",
  groups: "u32",
  steps: "u32",
  y_stride: "u32",
  y_offset: "u32",
  matrix_start: "u32",
  matrix_count: "u32",
  block_quads: "u32",
  pairs_per_x_row: "u32",
} as const;

/** A pipeline and the tile it was made for. */
export interface QExpertMatmulPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  readonly tile: QTile;
}

export const qExpertMatmulKernel = defineKernel({
  name: "q_expert_matmul",
  source,
  bindings: ["read", "read", "read", "read", "read", "write"],
  params: PARAMS,
});

export async function compileQExpertMatmul(
  gpu: Gpu,
  format: GroupedFormat,
  tile: QTile,
): Promise<QExpertMatmulPipeline> {
  const constants = qTileConstants(gpu, "q_expert_matmul", format, tile);
  // An expert's last tile is seldom full.
  const skipping = { ...constants, SKIP_ROWS: 1 };
  const pipeline = await qExpertMatmulKernel.compile(gpu, skipping, qTilePreludes(format));
  return { pipeline, tile };
}

/** y[pair] = W[expert of pair] x for tiles of at most the pipeline's rows of x; x in int8. */
export function qExpertMatmul(
  recorder: Recorder,
  { pipeline, tile }: QExpertMatmulPipeline,
  matrix: Matrix,
  x: QuantizedRows,
  rows: Omit<ExpertRows, "x" | "xStride">,
): void {
  const { columns } = matrix.spec;
  checkQTileLoops("q_expert_matmul", columns);
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [
        read(x.words),
        read(x.scales),
        read(part.buffer),
        read(rows.tiles),
        read(rows.order),
        write(rows.y),
      ],
      {
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        groups: groupCount(columns),
        steps: stepCount(columns),
        y_stride: rows.yStride,
        y_offset: rows.yOffset,
        matrix_start: part.matrixStart,
        matrix_count: part.matrixCount,
        block_quads: part.blockBytes / 16,
        pairs_per_x_row: rows.pairsPerXRow,
      },
      [...spread(Math.ceil(part.rowCount / qTileRows(tile).weights)), rows.tileLimit],
    );
  }
}
