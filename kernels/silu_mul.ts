import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import sigmoidSource from "./lib/sigmoid.wgsl" with { type: "text" };
import source from "./silu_mul.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;

export type SiluMulPipeline = Pipeline<typeof PARAMS>;

export const siluMulKernel = defineKernel({
  name: "silu_mul",
  source,
  preludes: [{ name: "lib/sigmoid.wgsl", source: sigmoidSource }],
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compileSiluMul(gpu: Gpu): Promise<SiluMulPipeline> {
  return siluMulKernel.compile(gpu);
}

/** y = silu(gate) up: gateUp f32 [rowCount][gate width | up width], y f32 [rowCount][width]. */
export function siluMul(
  recorder: Recorder,
  pipeline: SiluMulPipeline,
  gateUp: GPUBuffer,
  y: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  recorder.dispatch(
    pipeline,
    [read(gateUp), write(y)],
    { row_count: rowCount, width },
    spread(Math.ceil(rowCount * width / THREADS)),
  );
}
