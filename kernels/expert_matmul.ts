import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { Recorder } from "./gpu/recorder.ts";
import source from "./expert_matmul.wgsl" with { type: "text" };
import { dispatchExperts, EXPERT_PARAMS, type ExpertRows } from "./expert_params.ts";
import {
  checkTileLoops,
  MATMUL_TILE_PRELUDE,
  MATMUL_WEIGHT_ROWS,
  tileConstants,
} from "./matmul.ts";
import type { Matrix } from "./matrix.ts";
import type { WeightFormat } from "./types.ts";
import { weightPreludes } from "./weight_preludes.ts";

export const expertMatmulKernel = defineKernel({
  name: "expert_matmul",
  source,
  bindings: ["read", "read", "read", "read", "read", "write"],
  params: EXPERT_PARAMS,
});

export type ExpertMatmulPipeline = Pipeline<typeof EXPERT_PARAMS>;

/** `tileRows`: a multiple of 16, at most 256. */
export function compileExpertMatmul(
  gpu: Gpu,
  format: WeightFormat,
  tileRows: number,
): Promise<ExpertMatmulPipeline> {
  return expertMatmulKernel.compile(
    gpu,
    tileConstants(gpu, "expert_matmul", tileRows),
    [...weightPreludes(format), MATMUL_TILE_PRELUDE],
  );
}

/** y[pair] = W[expert of pair] x for tiles of at most the pipeline's `tileRows` pairs. */
export function expertMatmul(
  recorder: Recorder,
  pipeline: ExpertMatmulPipeline,
  matrix: Matrix,
  rows: ExpertRows,
): void {
  checkTileLoops("expert_matmul", matrix.spec.columns);
  dispatchExperts(
    recorder,
    pipeline,
    matrix,
    rows,
    (weightRows) => spread(Math.ceil(weightRows / MATMUL_WEIGHT_ROWS)),
  );
}
