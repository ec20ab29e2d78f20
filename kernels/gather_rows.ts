import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./gather_rows.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32" } as const;
const THREADS = 256;

export type GatherRowsPipeline = Pipeline<typeof PARAMS>;

export const gatherRowsKernel = defineKernel({
  name: "gather_rows",
  source,
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileGatherRows(gpu: Gpu): Promise<GatherRowsPipeline> {
  return gatherRowsKernel.compile(gpu);
}

/** y[i] = x[rows[i]]: rows u32 [rowCount], x f32 [..][width], y f32 [rowCount][width]. */
export function gatherRows(
  recorder: Recorder,
  pipeline: GatherRowsPipeline,
  rows: GPUBuffer,
  x: GPUBuffer,
  y: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  recorder.dispatch(
    pipeline,
    [read(rows), read(x), write(y)],
    { row_count: rowCount, width },
    spread(Math.ceil(rowCount * width / THREADS)),
  );
}
