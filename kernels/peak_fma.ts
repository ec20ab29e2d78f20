import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import source from "./peak_fma.wgsl" with { type: "text" };

const PARAMS = { turns: "u32", factor: "f32", addend: "f32" } as const;

export const PEAK_FMA_THREADS = 256;
/** Multiplications and additions of a workgroup in a turn. */
export const PEAK_FMA_TURN_OPERATIONS = PEAK_FMA_THREADS * 16 * 8 * 2;

export type PeakFmaPipeline = Pipeline<typeof PARAMS>;

export const peakFmaKernel = defineKernel({
  name: "peak_fma",
  source,
  bindings: ["write"],
  params: PARAMS,
});

export function compilePeakFma(gpu: Gpu): Promise<PeakFmaPipeline> {
  return peakFmaKernel.compile(gpu);
}

/** `sums`: write, f32 [groups][PEAK_FMA_THREADS]; `factor`, `addend`: see peak_fma.wgsl. */
export function peakFma(
  recorder: Recorder,
  pipeline: PeakFmaPipeline,
  sums: BufferUse,
  groups: number,
  { turns, factor, addend }: {
    readonly turns: number;
    readonly factor: number;
    readonly addend: number;
  },
): void {
  checkLoops("peak_fma", turns);
  recorder.dispatch(pipeline, [sums], { turns, factor, addend }, [groups]);
}
