import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import rowsSource from "./lib/matvec_rows.wgsl" with { type: "text" };
import source from "./matvec.wgsl" with { type: "text" };
import type { Matrix } from "./matrix.ts";
import { PROJECTION_PARAMS, projectionParams, type Rows } from "./projection_params.ts";
import { readScales } from "./scratch.ts";
import type { WeightFormat } from "./types.ts";
import { segmentCount, weightPreludes } from "./weight_preludes.ts";

/** Rows of x that one workgroup takes. */
export const MATVEC_X_ROWS = 4;
/** Rows of weights that one workgroup takes. */
export const MATVEC_WEIGHT_ROWS = 8;
/** x_tile and lane_sums of lib/matvec_rows.wgsl. */
export const MATVEC_WORKGROUP_BYTES = 16 * (544 + 264);

export const MATVEC_ROWS_PRELUDE = { name: "lib/matvec_rows.wgsl", source: rowsSource };

export type MatvecPipeline = Pipeline<typeof PROJECTION_PARAMS>;

export const matvecKernel = defineKernel({
  name: "matvec",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PROJECTION_PARAMS,
});

export function compileMatvec(gpu: Gpu, format: WeightFormat): Promise<MatvecPipeline> {
  checkWorkgroupMemory("matvec", MATVEC_WORKGROUP_BYTES, gpu.limits);
  return matvecKernel.compile(gpu, {}, [...weightPreludes(format), MATVEC_ROWS_PRELUDE]);
}

/** y (+)= W x for few rows: weights are read once per 4 rows of x. Shapes as in `Rows`. */
export function matvec(
  recorder: Recorder,
  pipeline: MatvecPipeline,
  matrix: Matrix,
  rows: Rows,
): void {
  checkLoops("matvec", Math.ceil(segmentCount(matrix.spec.columns) / 32));
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [read(rows.x), read(part.buffer, part.offset), readScales(matrix), write(rows.y)],
      projectionParams(matrix, part, rows),
      [
        ...spread(Math.ceil(part.rowCount / MATVEC_WEIGHT_ROWS)),
        Math.ceil(rows.rowCount / MATVEC_X_ROWS),
      ],
    );
  }
}
