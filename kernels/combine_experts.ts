import { checkLoops, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./combine_experts.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", choices: "u32", width: "u32" } as const;
const THREADS = 256;

export type CombineExpertsPipeline = Pipeline<typeof PARAMS>;

export const combineExpertsKernel = defineKernel({
  name: "combine_experts",
  source,
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileCombineExperts(gpu: Gpu): Promise<CombineExpertsPipeline> {
  return combineExpertsKernel.compile(gpu);
}

/**
 * y[row] += sum over i of weights[row][i] outputs[row][i]: outputs f32 [rowCount][choices][width],
 * weights f32 [rowCount][choices], y f32 [rowCount][width].
 */
export function combineExperts(
  recorder: Recorder,
  pipeline: CombineExpertsPipeline,
  outputs: GPUBuffer,
  weights: GPUBuffer,
  y: GPUBuffer,
  sizes: { readonly rowCount: number; readonly choices: number; readonly width: number },
): void {
  const { rowCount, choices, width } = sizes;
  checkLoops("combine_experts", choices);
  recorder.dispatch(
    pipeline,
    [read(outputs), read(weights), write(y)],
    { row_count: rowCount, choices, width },
    spread(Math.ceil(rowCount * width / THREADS)),
  );
}
