import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import source from "./peak_dot.wgsl" with { type: "text" };

const PARAMS = { turns: "u32", factor: "u32", addend: "u32" } as const;

export const PEAK_DOT_THREADS = 256;
/** Multiplications and additions of a workgroup in a turn: 4 of each a product. */
export const PEAK_DOT_TURN_OPERATIONS = PEAK_DOT_THREADS * 16 * 8 * 8;
/** Bytes of all sizes and both signs, and a sum that changes every byte. */
export const PEAK_DOT_FACTOR = 0x7f832bd5;
export const PEAK_DOT_ADDEND = 0x9e3779b9;

export type PeakDotPipeline = Pipeline<typeof PARAMS>;

export const peakDotKernel = defineKernel({
  name: "peak_dot",
  source,
  bindings: ["write"],
  params: PARAMS,
});

export function compilePeakDot(gpu: Gpu): Promise<PeakDotPipeline> {
  return peakDotKernel.compile(gpu);
}

/** `sums`: write, u32 [groups][PEAK_DOT_THREADS]. */
export function peakDot(
  recorder: Recorder,
  pipeline: PeakDotPipeline,
  sums: BufferUse,
  groups: number,
  turns: number,
): void {
  checkLoops("peak_dot", turns);
  const params = { turns, factor: PEAK_DOT_FACTOR, addend: PEAK_DOT_ADDEND };
  recorder.dispatch(pipeline, [sums], params, [groups]);
}
