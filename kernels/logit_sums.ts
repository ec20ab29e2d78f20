import { checkLoops, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import { logitParts } from "./logit_parts.ts";
import source from "./logit_sums.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32", part_count: "u32" } as const;
const THREADS = 64;
/** u32 words of one row's result, and of one part's share. */
export const SUM_WORDS = 4;
/** In place of a target's id. */
export const NO_TARGET = 0xffff_ffff;

export type LogitSumsPipeline = Pipeline<typeof PARAMS>;

export const logitSumsKernel = defineKernel({
  name: "logit_sums",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export function compileLogitSums(gpu: Gpu): Promise<LogitSumsPipeline> {
  return logitSumsKernel.compile(gpu);
}

/**
 * sums[row] = log-sum-exp of the row at temperature 1 and at its own, its target's logit, its
 * non-finite flag: shares as logit_parts gives them, logits f32 [rowCount][width], wanted
 * [rowCount][2], sums [rowCount][4].
 */
export function sumLogits(
  recorder: Recorder,
  pipeline: LogitSumsPipeline,
  shares: GPUBuffer,
  logits: GPUBuffer,
  wanted: GPUBuffer,
  sums: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  const partCount = logitParts(width);
  checkLoops("logit_sums", 2 * Math.ceil(partCount / THREADS) + 12);
  recorder.dispatch(
    pipeline,
    [read(shares), read(logits), read(wanted), write(sums)],
    { row_count: rowCount, width, part_count: partCount },
    spread(rowCount),
  );
}
