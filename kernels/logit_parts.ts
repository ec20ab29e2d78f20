import { checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import source from "./logit_parts.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;
/** Logits of one part. */
const PART = 2_048;

export type LogitPartsPipeline = Pipeline<typeof PARAMS>;

export const logitPartsKernel = defineKernel({
  name: "logit_parts",
  source,
  preludes: [{ name: "lib/nan.wgsl", source: nanSource }],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileLogitParts(gpu: Gpu): Promise<LogitPartsPipeline> {
  checkWorkgroupMemory("logit_parts", 16 * THREADS, gpu.limits);
  return logitPartsKernel.compile(gpu);
}

/** Parts of a row of `width` logits. */
export function logitParts(width: number): number {
  return Math.ceil(width / PART);
}

/**
 * The shares of each part of each row: logits f32 [rowCount][width], wanted [rowCount][2], shares
 * [rowCount][logitParts(width)][4].
 */
export function sumParts(
  recorder: Recorder,
  pipeline: LogitPartsPipeline,
  logits: GPUBuffer,
  wanted: GPUBuffer,
  shares: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  recorder.dispatch(
    pipeline,
    [read(logits), read(wanted), write(shares)],
    { row_count: rowCount, width },
    [logitParts(width), rowCount],
  );
}
