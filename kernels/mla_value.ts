import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import source from "./mla_value.wgsl" with { type: "text" };
import { readScales } from "./scratch.ts";
import type { MlaShape, WeightFormat } from "./types.ts";
import {
  SCALE_PARAMS,
  scaleParams,
  segmentCount,
  weightPreludes,
  weightSegments,
} from "./weight_preludes.ts";

/** Threads that share a value channel. */
const LANES = 16;
/** Value channels of a workgroup. */
const CHANNELS = 8;

const PARAMS = {
  head_count: "u32",
  nope_dim: "u32",
  value_dim: "u32",
  segments: "u32",
  weight_segments: "u32",
  weight_rows: "u32",
  row_start: "u32",
  first_row: "u32",
  head_groups: "u32",
  ...SCALE_PARAMS,
} as const;

export type MlaValuePipeline = Pipeline<typeof PARAMS>;

export const mlaValueKernel = defineKernel({
  name: "mla_value",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export function compileMlaValue(gpu: Gpu, format: WeightFormat): Promise<MlaValuePipeline> {
  return mlaValueKernel.compile(gpu, {}, weightPreludes(format));
}

/**
 * Of rows [start, + count): attended latents (read: [rows][headCount][16 segments of latentDim])
 * turned into values (write: [rows][headCount][valueDim]). `kvB` as in `mlaAbsorb`.
 */
export function mlaValue(
  recorder: Recorder,
  pipeline: MlaValuePipeline,
  kvB: Matrix,
  context: BufferUse,
  o: BufferUse,
  shape: MlaShape,
  rows: { readonly start: number; readonly count: number },
): void {
  const { headCount, nopeDim, valueDim, latentDim } = shape;
  const segments = segmentCount(latentDim);
  checkLoops("mla_value", Math.ceil(segments / LANES) + LANES);
  const headGroups = Math.ceil(valueDim / CHANNELS);
  for (const part of kvB.parts) {
    recorder.dispatch(
      pipeline,
      [context, read(part.buffer), readScales(kvB), o],
      {
        head_count: headCount,
        nope_dim: nopeDim,
        value_dim: valueDim,
        segments,
        weight_segments: weightSegments(kvB.spec),
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        first_row: rows.start,
        head_groups: headGroups,
        ...scaleParams(kvB.spec),
      },
      [headCount * headGroups, rows.count],
    );
  }
}
