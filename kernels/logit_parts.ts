import { checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import keySource from "./lib/logit_key.wgsl" with { type: "text" };
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import source from "./logit_parts.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;
/** Logits of one part, and its subsets. */
const PART = 2_048;
const PART_SUBSETS = 32;

export type LogitPartsPipeline = Pipeline<typeof PARAMS>;

export const logitPartsKernel = defineKernel({
  name: "logit_parts",
  source,
  preludes: [
    { name: "lib/nan.wgsl", source: nanSource },
    { name: "lib/logit_key.wgsl", source: keySource },
  ],
  bindings: ["read", "read", "write", "write"],
  params: PARAMS,
});

export function compileLogitParts(gpu: Gpu): Promise<LogitPartsPipeline> {
  checkWorkgroupMemory("logit_parts", 20 * THREADS, gpu.limits);
  return logitPartsKernel.compile(gpu);
}

/** Parts of a row of `width` logits. */
export function logitParts(width: number): number {
  return Math.ceil(width / PART);
}

/** Subsets of a row of `width` logits, whose largest keys `topTokens` begins with. */
export function logitSubsets(width: number): number {
  return PART_SUBSETS * logitParts(width);
}

/**
 * The shares of each part of each row: logits f32 [rowCount][width], wanted [rowCount][2], shares
 * [rowCount][logitParts(width)][4], maxima u32 [rowCount][logitSubsets(width)].
 */
export function sumParts(
  recorder: Recorder,
  pipeline: LogitPartsPipeline,
  logits: GPUBuffer,
  wanted: GPUBuffer,
  shares: GPUBuffer,
  maxima: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  recorder.dispatch(
    pipeline,
    [read(logits), read(wanted), write(shares), write(maxima)],
    { row_count: rowCount, width },
    [logitParts(width), rowCount],
  );
}
