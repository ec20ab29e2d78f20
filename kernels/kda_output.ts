import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import source from "./kda_output.wgsl" with { type: "text" };
import sigmoid from "./lib/sigmoid.wgsl" with { type: "text" };
import workgroupSum from "./lib/workgroup_sum.wgsl" with { type: "text" };

const THREADS = 128;

const PARAMS = { head_count: "u32", value_dim: "u32", epsilon: "f32" } as const;

export type KdaOutputPipeline = Pipeline<typeof PARAMS>;

export const kdaOutputKernel = defineKernel({
  name: "kda_output",
  source,
  preludes: [
    { name: "lib/sigmoid.wgsl", source: sigmoid },
    { name: "lib/workgroup_sum.wgsl", source: workgroupSum },
  ],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export interface KdaOutputBuffers {
  /** read: gate logits, [rows][headCount][valueDim]. */
  readonly gate: BufferUse;
  /** read: [valueDim]. */
  readonly weight: BufferUse;
  /** write: [rows][headCount][valueDim], in place. */
  readonly o: BufferUse;
}

export function compileKdaOutput(gpu: Gpu): Promise<KdaOutputPipeline> {
  return kdaOutputKernel.compile(gpu);
}

/** RMS norm of each head's output, times weight and sigmoid gate. */
export function kdaOutput(
  recorder: Recorder,
  pipeline: KdaOutputPipeline,
  buffers: KdaOutputBuffers,
  shape: { readonly headCount: number; readonly valueDim: number; readonly epsilon: number },
  rowCount: number,
): void {
  checkLoops("kda_output", 2 * Math.ceil(shape.valueDim / THREADS) + 7);
  recorder.dispatch(
    pipeline,
    [buffers.gate, buffers.weight, buffers.o],
    { head_count: shape.headCount, value_dim: shape.valueDim, epsilon: shape.epsilon },
    [shape.headCount, rowCount],
  );
}
