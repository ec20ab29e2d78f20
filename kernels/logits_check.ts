import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import source from "./logits_check.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;

export type LogitsCheckPipeline = Pipeline<typeof PARAMS>;

export const logitsCheckKernel = defineKernel({
  name: "logits_check",
  source,
  preludes: [{ name: "lib/nan.wgsl", source: nanSource }],
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compileLogitsCheck(gpu: Gpu): Promise<LogitsCheckPipeline> {
  checkWorkgroupMemory("logits_check", 4 * THREADS, gpu.limits);
  return logitsCheckKernel.compile(gpu);
}

/** flags[row] = any of logits[row] not finite: logits f32 [rowCount][width], flags u32 [..]. */
export function checkLogits(
  recorder: Recorder,
  pipeline: LogitsCheckPipeline,
  logits: GPUBuffer,
  flags: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  checkLoops("logits_check", Math.ceil(width / THREADS) + 8);
  recorder.dispatch(
    pipeline,
    [read(logits), write(flags)],
    { row_count: rowCount, width },
    spread(rowCount),
  );
}
