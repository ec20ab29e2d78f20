import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./logit_edits.wgsl" with { type: "text" };

const PARAMS = { count: "u32", width: "u32" } as const;
const THREADS = 256;
/** u32 words of one edit: row, id, and the bits of divide and add. */
export const EDIT_WORDS = 4;

export type LogitEditsPipeline = Pipeline<typeof PARAMS>;

export const logitEditsKernel = defineKernel({
  name: "logit_edits",
  source,
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compileLogitEdits(gpu: Gpu): Promise<LogitEditsPipeline> {
  return logitEditsKernel.compile(gpu);
}

/** Applies edits [count][4] to logits f32 [..][width]; see LogitEdits in types.ts. */
export function editLogits(
  recorder: Recorder,
  pipeline: LogitEditsPipeline,
  edits: GPUBuffer,
  logits: GPUBuffer,
  count: number,
  width: number,
): void {
  const groups = spread(Math.ceil(count / THREADS));
  recorder.dispatch(pipeline, [read(edits), write(logits)], { count, width }, groups);
}
