import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import sumSource from "./lib/workgroup_sum.wgsl" with { type: "text" };
import source from "./norm_quantize.wgsl" with { type: "text" };
import {
  QUANTIZE_GROUPS_PRELUDE,
  QUANTIZE_WORKGROUP_BYTES,
  type QuantizedRows,
  stepCount,
} from "./quantize_rows.ts";

const PARAMS = { row_count: "u32", width: "u32", steps: "u32", epsilon: "f32" } as const;

export type NormQuantizePipeline = Pipeline<typeof PARAMS>;

export const normQuantizeKernel = defineKernel({
  name: "norm_quantize",
  source,
  preludes: [{ name: "lib/workgroup_sum.wgsl", source: sumSource }, QUANTIZE_GROUPS_PRELUDE],
  bindings: ["read", "read", "write", "write", "write"],
  params: PARAMS,
});

export function compileNormQuantize(gpu: Gpu): Promise<NormQuantizePipeline> {
  checkWorkgroupMemory("norm_quantize", QUANTIZE_WORKGROUP_BYTES + 4 * 128, gpu.limits);
  return normQuantizeKernel.compile(gpu);
}

/**
 * RMS norm of x, f32 [rowCount][width], with `weight`, f32 [width]: into target.values, which must
 * be there, with the bits of `RmsNorm`, and rounded to int8 into target.
 */
export function normQuantize(
  recorder: Recorder,
  pipeline: NormQuantizePipeline,
  x: GPUBuffer,
  weight: GPUBuffer,
  target: QuantizedRows,
  width: number,
  rowCount: number,
  epsilon: number,
): void {
  target.check(rowCount, width);
  if (target.values === null || target.values.size < 4 * rowCount * width) {
    throw new Error(
      `normalize rows: wanted ${4 * rowCount * width} bytes of floats in the target, ` +
        `found ${target.values?.size ?? 0}`,
    );
  }
  const steps = stepCount(width);
  checkLoops("norm_quantize", Math.ceil(width / 128) + Math.ceil(steps / 16) + 9);
  recorder.dispatch(
    pipeline,
    [read(x), read(weight), write(target.values), write(target.words), write(target.scales)],
    { row_count: rowCount, width, steps, epsilon },
    spread(rowCount),
  );
}
