import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import source from "./logit_masks.wgsl" with { type: "text" };

const PARAMS = { mask_count: "u32", width: "u32" } as const;
const THREADS = 256;

/** What the kernel writes where a token may not come. On the host it becomes -Infinity. */
export const MASKED = -3.4028234663852886e38;

export type LogitMasksPipeline = Pipeline<typeof PARAMS>;

export const logitMasksKernel = defineKernel({
  name: "logit_masks",
  source,
  preludes: [{ name: "lib/nan.wgsl", source: nanSource }],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileLogitMasks(gpu: Gpu): Promise<LogitMasksPipeline> {
  return logitMasksKernel.compile(gpu);
}

/** u32 words of one mask over `width` tokens. */
export function maskWords(width: number): number {
  return Math.ceil(width / 32);
}

/** Masks logits f32 [..][width]: mask i of [count][maskWords(width)] is that of row rows[i]. */
export function maskLogits(
  recorder: Recorder,
  pipeline: LogitMasksPipeline,
  rows: GPUBuffer,
  masks: GPUBuffer,
  logits: GPUBuffer,
  width: number,
  count: number,
): void {
  const groups = [Math.ceil(width / THREADS), count] as const;
  const uses = [read(rows), read(masks), write(logits)];
  recorder.dispatch(pipeline, uses, { mask_count: count, width }, groups);
}
