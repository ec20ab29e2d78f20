import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import source from "./logit_sums.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;
/** u32 words of one row's result. */
export const SUM_WORDS = 4;
/** In place of a target's id. */
export const NO_TARGET = 0xffff_ffff;

export type LogitSumsPipeline = Pipeline<typeof PARAMS>;

export const logitSumsKernel = defineKernel({
  name: "logit_sums",
  source,
  preludes: [{ name: "lib/nan.wgsl", source: nanSource }],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileLogitSums(gpu: Gpu): Promise<LogitSumsPipeline> {
  checkWorkgroupMemory("logit_sums", 16 * THREADS, gpu.limits);
  return logitSumsKernel.compile(gpu);
}

/**
 * sums[row] = log-sum-exp of the row at temperature 1 and at its own, its target's logit, its
 * non-finite flag: logits f32 [rowCount][width], wanted [rowCount][2], sums [rowCount][4].
 */
export function sumLogits(
  recorder: Recorder,
  pipeline: LogitSumsPipeline,
  logits: GPUBuffer,
  wanted: GPUBuffer,
  sums: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  checkLoops("logit_sums", 2 * Math.ceil(width / THREADS) + 24);
  recorder.dispatch(
    pipeline,
    [read(logits), read(wanted), write(sums)],
    { row_count: rowCount, width },
    spread(rowCount),
  );
}
