import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import source from "./kda_gate.wgsl" with { type: "text" };
import sigmoid from "./lib/sigmoid.wgsl" with { type: "text" };
import softplus from "./lib/softplus.wgsl" with { type: "text" };
import workgroupSum from "./lib/workgroup_sum.wgsl" with { type: "text" };

const THREADS = 128;

const PARAMS = { head_count: "u32", key_dim: "u32", mixed_stride: "u32" } as const;

export type KdaGatePipeline = Pipeline<typeof PARAMS>;

export const kdaGateKernel = defineKernel({
  name: "kda_gate",
  source,
  preludes: [
    { name: "lib/sigmoid.wgsl", source: sigmoid },
    { name: "lib/softplus.wgsl", source: softplus },
    { name: "lib/workgroup_sum.wgsl", source: workgroupSum },
  ],
  bindings: ["read", "read", "write", "write", "write"],
  params: PARAMS,
});

export interface KdaGateBuffers {
  /** read: [headCount]. */
  readonly aLog: BufferUse;
  /** read: [headCount][keyDim]. */
  readonly dtBias: BufferUse;
  /** write: q | k | v, [rows][mixedStride]; q and k become normalised. */
  readonly mixed: BufferUse;
  /** write: the gate's projection a in, exp(g) out, [rows][headCount][keyDim]. */
  readonly retention: BufferUse;
  /** write: the projection b in, sigmoid(b) out, [rows][headCount]. */
  readonly beta: BufferUse;
}

export function compileKdaGate(gpu: Gpu): Promise<KdaGatePipeline> {
  return kdaGateKernel.compile(gpu);
}

/** Normalises q and k and turns the gate projections into retentions and write strengths. */
export function kdaGate(
  recorder: Recorder,
  pipeline: KdaGatePipeline,
  buffers: KdaGateBuffers,
  shape: { readonly headCount: number; readonly keyDim: number; readonly mixedStride: number },
  rowCount: number,
): void {
  checkLoops("kda_gate", 5 * Math.ceil(shape.keyDim / THREADS) + 14);
  recorder.dispatch(
    pipeline,
    [buffers.aLog, buffers.dtBias, buffers.mixed, buffers.retention, buffers.beta],
    { head_count: shape.headCount, key_dim: shape.keyDim, mixed_stride: shape.mixedStride },
    [shape.headCount, rowCount],
  );
}
