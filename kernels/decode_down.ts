import source from "./decode_down.wgsl" with { type: "text" };
import { type DecodeOutBuffers, type NextBlock, OUT_TILE } from "./decode_out.ts";
import {
  groupLiterals,
  groupPieces,
  pieces,
  rowLiterals,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { DOWN_LANES } from "./gpu/tuning.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix, scaleStride } from "./matrix.ts";
import { onlyPart, readWhole } from "./scratch.ts";

const PARAMS = {
  row_count: "u32",
  row_start: "u32",
  groups: "u32",
  columns: "u32",
  block_quads: "u32",
  scale_stride: "u32",
  experts: "u32",
  even_first: "u32",
} as const;

export type DecodeDownPipeline = Pipeline<typeof PARAMS>;

export const decodeDownKernel = defineKernel({
  name: "decode_down",
  source,
  bindings: ["read", "read", "read", "read", "write", "write", "write", "write"],
  params: PARAMS,
});

/** `down`: the experts' stack; `width`: of an expert; `choices`: matrices that work on a row. */
export function compileDecodeDown(
  gpu: Gpu,
  down: RowStorage,
  width: number,
  choices: number,
): Promise<DecodeDownPipeline> {
  const preludes = [
    ...rowPieces(down.format),
    ...groupPieces(down.format),
    ...pieces("plain_scale", "residual_end"),
  ];
  const { parts } = gpu.tuning.numbers.down;
  const literals = {
    ...rowLiterals(down, width, { lanes: DOWN_LANES }),
    ...groupLiterals(down.format, OUT_TILE),
    CHOICES: choices,
    CHOICE_PARTS: parts,
    PART_CHOICES: Math.ceil(choices / parts),
    ROW_PARTS: parts,
  };
  return decodeDownKernel.compile(gpu, {}, preludes, literals);
}

/** residual += the experts' outputs for rows [rowStart, + rowCount) of a step. */
export function decodeDown(
  recorder: Recorder,
  pipeline: DecodeDownPipeline,
  down: Matrix,
  { x, residual, groups, scaled, limbs }: DecodeOutBuffers,
  chosen: BufferUse,
  norm: NextBlock["norm"],
  sizes: {
    readonly rowStart: number;
    readonly rowCount: number;
    readonly experts: number;
    readonly evenFirst: number;
  },
): void {
  const { rows, columns } = down.spec;
  const { rowStart, rowCount, experts, evenFirst } = sizes;
  recorder.dispatch(
    pipeline,
    [x, chosen, readWhole(down), readWhole(norm), residual, groups, scaled, limbs],
    {
      row_count: rowCount,
      row_start: rowStart,
      groups: groupCount(columns),
      columns: rows,
      block_quads: onlyPart(down).blockBytes / 16,
      scale_stride: scaleStride(columns),
      experts,
      even_first: evenFirst,
    },
    [Math.ceil(rows / OUT_TILE) * rowCount],
  );
}
