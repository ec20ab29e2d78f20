import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import source from "./peak_read.wgsl" with { type: "text" };

const PARAMS = { groups: "u32" } as const;

/** Bytes that one workgroup reads in a pass. */
export const PEAK_READ_GROUP_BYTES = 16 * 2_048;

export type PeakReadPipeline = Pipeline<typeof PARAMS>;

export const peakReadKernel = defineKernel({
  name: "peak_read",
  source,
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compilePeakRead(gpu: Gpu): Promise<PeakReadPipeline> {
  return peakReadKernel.compile(gpu);
}

/**
 * Reads the first `groups` groups of PEAK_READ_GROUP_BYTES of `data`, `passes` times; `sums`:
 * write, u32 [passes][groups].
 */
export function peakRead(
  recorder: Recorder,
  pipeline: PeakReadPipeline,
  { data, sums }: { readonly data: BufferUse; readonly sums: BufferUse },
  groups: number,
  passes: number,
): void {
  recorder.dispatch(pipeline, [data, sums], { groups }, [groups, passes]);
}
