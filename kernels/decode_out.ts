import source from "./decode_out.wgsl" with { type: "text" };
import {
  type ByRows,
  compileByRows,
  floatPieces,
  forRows,
  groupLiterals,
  groupPieces,
  pieces,
  rowLiterals,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix, scaleStride } from "./matrix.ts";
import { readWhole } from "./scratch.ts";
import { type FloatFormat, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  row_count: "u32",
  row_start: "u32",
  groups: "u32",
  columns: "u32",
  scale_stride: "u32",
  head_dim: "u32",
  epsilon: "f32",
  experts: "u32",
  segments: "u32",
  even_first: "u32",
} as const;

/** Rows of the matrix that one workgroup takes: one activation group of its output. */
export const OUT_TILE = 32;

export type DecodeOutPipeline = ByRows<Pipeline<typeof PARAMS>>;

export const decodeOutKernel = defineKernel({
  name: "decode_out",
  source,
  bindings: ["read", "read", "read", "read", "write", "write", "write", "write"],
  params: PARAMS,
});

/**
 * `headDim`: channels of a head that its squares normalise, a multiple of 32; 0 for none.
 * `rowsMax`: rows of x.
 */
export function compileDecodeOut(
  gpu: Gpu,
  matrix: RowStorage,
  routerFormat: FloatFormat,
  columns: number,
  headDim: number,
  rowsMax: number,
): Promise<DecodeOutPipeline> {
  const preludes = [
    ...rowPieces(matrix.format),
    ...floatPieces(routerFormat),
    ...groupPieces(matrix.format),
    ...pieces("limbs", "residual_end"),
  ];
  const { lanes } = gpu.tuning.numbers.out;
  return compileByRows(gpu, rowsMax, (xRows, steps) => {
    const literals = {
      ...rowLiterals(matrix, columns, { lanes, rows: steps, xRows }),
      ...groupLiterals(matrix.format, OUT_TILE * xRows),
      HEAD_GROUPS: headDim / 32,
      ROW_PARTS: xRows,
      ROW_STEPS: steps,
    };
    return decodeOutKernel.compile(gpu, {}, preludes, literals);
  });
}

/** What the kernels at the end of a block write for the next one. */
export interface NextBlock {
  /** f32 [1, columns] of the norm that follows. */
  readonly norm: Matrix;
  /** The router that follows, [experts, columns]; null where none does. */
  readonly router: Matrix | null;
}

export interface DecodeOutBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** write: f32 [rows][columns]. */
  readonly residual: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][columns / 32]. */
  readonly groups: BufferUse;
  /** write: f32 [rowCount][columns]. */
  readonly scaled: BufferUse;
  /** write: i32 [rowCount][experts][3]. */
  readonly limbs: BufferUse;
}

/** residual += W x for rows [rowStart, + rowCount) of a step. */
export function decodeOut(
  recorder: Recorder,
  pipelines: DecodeOutPipeline,
  matrix: Matrix,
  { x, residual, groups, scaled, limbs }: DecodeOutBuffers,
  next: NextBlock,
  sizes: {
    readonly rowStart: number;
    readonly rowCount: number;
    readonly headDim: number;
    readonly epsilon: number;
    readonly evenFirst: number;
  },
): void {
  const { rows, columns } = matrix.spec;
  const { rowStart, rowCount, headDim, epsilon, evenFirst } = sizes;
  const norm = readWhole(next.norm);
  const { chosen, rowGroups } = forRows(pipelines, rowCount);
  recorder.dispatch(
    chosen,
    [
      x,
      readWhole(matrix),
      norm,
      next.router === null ? norm : readWhole(next.router),
      residual,
      groups,
      scaled,
      limbs,
    ],
    {
      row_count: rowCount,
      row_start: rowStart,
      groups: groupCount(columns),
      columns: rows,
      scale_stride: scaleStride(columns),
      head_dim: headDim,
      epsilon,
      experts: next.router?.spec.rows ?? 0,
      segments: segmentCount(rows),
      even_first: evenFirst,
    },
    [Math.ceil(rows / OUT_TILE) * rowGroups],
  );
}
