import { checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import sigmoidSource from "./lib/sigmoid.wgsl" with { type: "text" };
import {
  QUANTIZE_GROUPS_PRELUDE,
  QUANTIZE_WORKGROUP_BYTES,
  type QuantizedRows,
  stepCount,
} from "./quantize_rows.ts";
import source from "./silu_quantize.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32", steps: "u32" } as const;
/** Threads of a workgroup, and of a step of 64 columns. */
const THREADS = 128;
const STEP_THREADS = 8;

export type SiluQuantizePipeline = Pipeline<typeof PARAMS>;

export const siluQuantizeKernel = defineKernel({
  name: "silu_quantize",
  source,
  preludes: [{ name: "lib/sigmoid.wgsl", source: sigmoidSource }, QUANTIZE_GROUPS_PRELUDE],
  bindings: ["read", "write", "write"],
  params: PARAMS,
});

export function compileSiluQuantize(gpu: Gpu): Promise<SiluQuantizePipeline> {
  checkWorkgroupMemory("silu_quantize", QUANTIZE_WORKGROUP_BYTES, gpu.limits);
  return siluQuantizeKernel.compile(gpu);
}

/** target = silu(gate) up, in int8: gateUp f32 [rowCount][gate width | up width]. */
export function siluQuantize(
  recorder: Recorder,
  pipeline: SiluQuantizePipeline,
  gateUp: GPUBuffer,
  target: QuantizedRows,
  width: number,
  rowCount: number,
): void {
  target.check(rowCount, width);
  const steps = stepCount(width);
  recorder.dispatch(
    pipeline,
    [read(gateUp), write(target.words), write(target.scales)],
    { row_count: rowCount, width, steps },
    spread(Math.ceil(rowCount * STEP_THREADS * steps / THREADS)),
  );
}
