import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { Recorder } from "./gpu/recorder.ts";
import source from "./expert_matvec.wgsl" with { type: "text" };
import { dispatchExperts, EXPERT_PARAMS, type ExpertRows } from "./expert_params.ts";
import type { Matrix } from "./matrix.ts";
import { MATVEC_ROWS_PRELUDE, MATVEC_WEIGHT_ROWS, MATVEC_WORKGROUP_BYTES } from "./matvec.ts";
import type { WeightFormat } from "./types.ts";
import { segmentCount, weightPreludes } from "./weight_preludes.ts";

export const expertMatvecKernel = defineKernel({
  name: "expert_matvec",
  source,
  bindings: ["read", "read", "read", "read", "read", "write"],
  params: EXPERT_PARAMS,
});

export type ExpertMatvecPipeline = Pipeline<typeof EXPERT_PARAMS>;

export function compileExpertMatvec(gpu: Gpu, format: WeightFormat): Promise<ExpertMatvecPipeline> {
  checkWorkgroupMemory("expert_matvec", MATVEC_WORKGROUP_BYTES, gpu.limits);
  return expertMatvecKernel.compile(gpu, {}, [...weightPreludes(format), MATVEC_ROWS_PRELUDE]);
}

/** y[pair] = W[expert of pair] x for tiles of at most `MATVEC_X_ROWS` pairs. */
export function expertMatvec(
  recorder: Recorder,
  pipeline: ExpertMatvecPipeline,
  matrix: Matrix,
  rows: ExpertRows,
): void {
  checkLoops("expert_matvec", Math.ceil(segmentCount(matrix.spec.columns) / 32));
  dispatchExperts(
    recorder,
    pipeline,
    matrix,
    rows,
    (weightRows) => spread(Math.ceil(weightRows / MATVEC_WEIGHT_ROWS)),
  );
}
