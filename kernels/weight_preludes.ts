/** How kernels read weights: one piece of WGSL a format, and one for the scales. */
import type { Prelude } from "./gpu/kernel.ts";
import f16Pair from "./lib/f16_pair.wgsl" with { type: "text" };
import scaleGrid from "./lib/scale_grid.wgsl" with { type: "text" };
import scaleGroups from "./lib/scale_groups.wgsl" with { type: "text" };
import scaleNone from "./lib/scale_none.wgsl" with { type: "text" };
import weights16Bf16 from "./lib/weights16_bf16.wgsl" with { type: "text" };
import weights16F16 from "./lib/weights16_f16.wgsl" with { type: "text" };
import weights16F32 from "./lib/weights16_f32.wgsl" with { type: "text" };
import weights16Fp8 from "./lib/weights16_fp8.wgsl" with { type: "text" };
import weights16Q4 from "./lib/weights16_q4.wgsl" with { type: "text" };
import weights16Q8 from "./lib/weights16_q8.wgsl" with { type: "text" };
import { groupCount, isGrouped, STRIDE_ELEMENTS } from "./matrix.ts";
import type { TensorSpec, WeightFormat } from "./types.ts";

/** Formats whose elements kernels turn into floats, 16 at a time. */
export type FloatFormat = Exclude<WeightFormat, "q8" | "q4">;

const SOURCES: Readonly<Record<WeightFormat, string>> = {
  f32: weights16F32,
  f16: weights16F16,
  bf16: weights16Bf16,
  fp8: weights16Fp8,
  q8: weights16Q8,
  q4: weights16Q4,
};

/**
 * The pieces that define `weights16` and `scaled16` for a format. For q8 and q4 one matrix is
 * bound, and the kernel's Params have weight_segments, see `weightSegments`.
 */
export function weightPreludes(format: WeightFormat): readonly Prelude[] {
  const elements = { name: `lib/weights16_${format}.wgsl`, source: SOURCES[format] };
  if (isGrouped(format)) {
    return [
      elements,
      { name: "lib/f16_pair.wgsl", source: f16Pair },
      { name: "lib/scale_groups.wgsl", source: scaleGroups },
    ];
  }
  return [
    elements,
    format === "fp8"
      ? { name: "lib/scale_grid.wgsl", source: scaleGrid }
      : { name: "lib/scale_none.wgsl", source: scaleNone },
  ];
}

/** Fields of `struct Params` that `scaled16` reads. */
export const SCALE_PARAMS = {
  rows_per_scale: "u32",
  columns_per_scale: "u32",
  scale_rows: "u32",
  scale_columns: "u32",
} as const;

/** Their values for a tensor; zeros, which nothing reads, where it has no scales. */
export function scaleParams(spec: TensorSpec): Record<keyof typeof SCALE_PARAMS, number> {
  if ((spec.format === "fp8") !== (spec.scale !== null)) {
    throw new Error(
      `use weight "${spec.key}": wanted scales for fp8 only, ` +
        `found ${spec.scale === null ? "none" : "some"} for ${spec.format}`,
    );
  }
  if (spec.scale === null) {
    return { rows_per_scale: 0, columns_per_scale: 0, scale_rows: 0, scale_columns: 0 };
  }
  const { rowsPerScale, columnsPerScale } = spec.scale;
  return {
    rows_per_scale: rowsPerScale,
    columns_per_scale: columnsPerScale,
    scale_rows: Math.ceil(spec.rows / rowsPerScale),
    scale_columns: Math.ceil(spec.columns / columnsPerScale),
  };
}

/** Segments of 16 elements in a row of a matrix with `columns` columns, padding included. */
export function segmentCount(columns: number): number {
  return Math.ceil(columns / STRIDE_ELEMENTS);
}

/** Segments of 16 elements from one stored row to the next: whole groups in q8 and q4. */
export function weightSegments({ format, columns }: TensorSpec): number {
  return isGrouped(format) ? 2 * groupCount(columns) : segmentCount(columns);
}
