import { checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import groupsSource from "./lib/quantize_groups.wgsl" with { type: "text" };
import { groupCount } from "./matrix.ts";
import source from "./quantize_rows.wgsl" with { type: "text" };
import { scratch } from "./scratch.ts";

const PARAMS = { row_count: "u32", columns: "u32", steps: "u32", x_stride: "u32" } as const;

const THREADS = 128;
/** Threads of a step, 8 columns each. */
const STEP_THREADS = 8;
const STEP_WORDS = 16;
const STEP_SCALES = 2;
const QUANTIZE_WORKGROUP_BYTES = 4 * THREADS;

const QUANTIZE_GROUPS_PRELUDE = {
  name: "lib/quantize_groups.wgsl",
  source: groupsSource,
};

export type QuantizeRowsPipeline = Pipeline<typeof PARAMS>;

export const quantizeRowsKernel = defineKernel({
  name: "quantize_rows",
  source,
  preludes: [QUANTIZE_GROUPS_PRELUDE],
  bindings: ["read", "write", "write"],
  params: PARAMS,
});

/** Steps of 64 columns, two groups, in a row of `columns` columns, the last one padded. */
export function stepCount(columns: number): number {
  return Math.ceil(groupCount(columns) / 2);
}

/**
 * Activations as the integer kernels take them: int8 in groups of 32 columns with an f32 scale
 * each, by `quantizeRows`.
 */
export class QuantizedRows {
  private constructor(
    private readonly stepsMax: number,
    /** u32 [rows][16 steps]. */
    readonly words: GPUBuffer,
    /** f32 [rows][2 steps]. */
    readonly scales: GPUBuffer,
  ) {}

  /** Room for `rows` rows of `columns` columns, or what takes no more. */
  static allocate(
    gpu: Gpu,
    label: string,
    rows: number,
    columns: number,
  ): QuantizedRows {
    const steps = rows * stepCount(columns);
    return new QuantizedRows(
      steps,
      scratch(gpu, `${label}, int8`, STEP_WORDS * steps),
      scratch(gpu, `${label}, scales`, STEP_SCALES * steps),
    );
  }

  /** Throws when `rows` rows of `columns` columns take more than was allocated. */
  check(rows: number, columns: number): void {
    const steps = rows * stepCount(columns);
    if (steps > this.stepsMax) {
      throw new Error(
        `quantize ${rows} rows of ${columns}: wanted at most ${this.stepsMax} steps of 64 ` +
          `columns, found ${steps}`,
      );
    }
  }
}

export function compileQuantizeRows(gpu: Gpu): Promise<QuantizeRowsPipeline> {
  checkWorkgroupMemory("quantize_rows", QUANTIZE_WORKGROUP_BYTES, gpu.limits);
  return quantizeRowsKernel.compile(gpu);
}

/** target = the first `columns` columns of x, f32 [rowCount][xStride], rounded to int8. */
export function quantizeRows(
  recorder: Recorder,
  pipeline: QuantizeRowsPipeline,
  x: GPUBuffer,
  xStride: number,
  target: QuantizedRows,
  columns: number,
  rowCount: number,
): void {
  target.check(rowCount, columns);
  const steps = stepCount(columns);
  recorder.dispatch(
    pipeline,
    [read(x), write(target.words), write(target.scales)],
    { row_count: rowCount, columns, steps, x_stride: xStride },
    spread(Math.ceil(rowCount * STEP_THREADS * steps / THREADS)),
  );
}
