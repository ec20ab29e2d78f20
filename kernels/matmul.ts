import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import tileSource from "./lib/matmul_tile.wgsl" with { type: "text" };
import source from "./matmul.wgsl" with { type: "text" };
import type { Matrix } from "./matrix.ts";
import { PROJECTION_PARAMS, projectionParams, type Rows } from "./projection_params.ts";
import { readScales } from "./scratch.ts";
import type { WeightFormat } from "./types.ts";
import { segmentCount, weightPreludes } from "./weight_preludes.ts";

/** Rows of weights that one workgroup takes. */
export const MATMUL_WEIGHT_ROWS = 64;

export const MATMUL_TILE_PRELUDE = { name: "lib/matmul_tile.wgsl", source: tileSource };

/** A pipeline and the rows of x that one workgroup of it takes. */
export interface MatmulPipeline {
  readonly pipeline: Pipeline<typeof PROJECTION_PARAMS>;
  readonly tileRows: number;
}

export const matmulKernel = defineKernel({
  name: "matmul",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PROJECTION_PARAMS,
});

/** The constants of lib/matmul_tile.wgsl; checks the workgroup memory of its tiles. */
export function tileConstants(gpu: Gpu, name: string, tileRows: number): Record<string, number> {
  checkWorkgroupMemory(name, 16 * (5 * tileRows + 320), gpu.limits);
  return { TILE_ROWS: tileRows, THREADS: 4 * tileRows };
}

/** Loop turns of lib/matmul_tile.wgsl. */
export function checkTileLoops(name: string, columns: number): void {
  checkLoops(name, 32 + segmentCount(columns));
}

/** `tileRows`: a multiple of 16, at most 256. */
export async function compileMatmul(
  gpu: Gpu,
  format: WeightFormat,
  tileRows: number,
): Promise<MatmulPipeline> {
  const pipeline = await matmulKernel.compile(
    gpu,
    tileConstants(gpu, "matmul", tileRows),
    [...weightPreludes(format), MATMUL_TILE_PRELUDE],
  );
  return { pipeline, tileRows };
}

/** y (+)= W x for many rows: weights are read once per `tileRows` rows. Shapes as in `Rows`. */
export function matmul(
  recorder: Recorder,
  { pipeline, tileRows }: MatmulPipeline,
  matrix: Matrix,
  rows: Rows,
): void {
  checkTileLoops("matmul", matrix.spec.columns);
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [read(rows.x), read(part.buffer, part.offset), readScales(matrix), write(rows.y)],
      projectionParams(matrix, part, rows),
      [
        ...spread(Math.ceil(part.rowCount / MATMUL_WEIGHT_ROWS)),
        Math.ceil(rows.rowCount / tileRows),
      ],
    );
  }
}
