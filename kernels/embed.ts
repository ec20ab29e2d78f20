import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./embed.wgsl" with { type: "text" };
import type { Matrix } from "./matrix.ts";
import { readScales } from "./scratch.ts";
import type { WeightFormat } from "./types.ts";
import {
  SCALE_PARAMS,
  scaleParams,
  segmentCount,
  weightPreludes,
  weightSegments,
} from "./weight_preludes.ts";

const PARAMS = {
  row_count: "u32",
  weight_rows: "u32",
  row_start: "u32",
  columns: "u32",
  segments: "u32",
  weight_segments: "u32",
  ...SCALE_PARAMS,
} as const;

/** Threads of a workgroup; each copies 16 columns of a row. */
const THREADS = 64;

export type EmbedPipeline = Pipeline<typeof PARAMS>;

export const embedKernel = defineKernel({
  name: "embed",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export function compileEmbed(gpu: Gpu, format: WeightFormat): Promise<EmbedPipeline> {
  return embedKernel.compile(gpu, {}, weightPreludes(format));
}

/**
 * y[row] = W[tokens[row]]: tokens u32 [rowCount], each below the matrix's rows (others leave their
 * row of y as it is); y f32 [rowCount][columns].
 */
export function embed(
  recorder: Recorder,
  pipeline: EmbedPipeline,
  matrix: Matrix,
  tokens: GPUBuffer,
  y: GPUBuffer,
  rowCount: number,
): void {
  const { columns } = matrix.spec;
  const segments = segmentCount(columns);
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [read(tokens), read(part.buffer), readScales(matrix), write(y)],
      {
        row_count: rowCount,
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        columns,
        segments,
        weight_segments: weightSegments(matrix.spec),
        ...scaleParams(matrix.spec),
      },
      spread(Math.ceil(rowCount * segments / THREADS)),
    );
  }
}
