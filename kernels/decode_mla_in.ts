import { IN_FLOAT_TILE } from "./decode_kda_in.ts";
import source from "./decode_mla_in.wgsl" with { type: "text" };
import {
  compileMatrixRows,
  floatPieces,
  floatRowLiterals,
  forRows,
  type MatrixPipeline,
  pieces,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import { groupCount, scaleStride } from "./matrix.ts";
import type { MlaWeights } from "./mla.ts";
import { readWhole } from "./scratch.ts";
import { type FloatFormat, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  block_rows: "u32",
  scale_stride: "u32",
  float_tiles: "u32",
  segments: "u32",
  float_rows: "u32",
} as const;

export type DecodeMlaInPipeline = MatrixPipeline<typeof PARAMS>;

export const decodeMlaInKernel = defineKernel({
  name: "decode_mla_in",
  source,
  bindings: ["read", "read", "read", "read", "write"],
  params: PARAMS,
});

/**
 * For a W_q stored like this and a float kv_a; `columns`: the hidden size; `rowsMax`: rows of x.
 */
export function compileDecodeMlaIn(
  gpu: Gpu,
  q: RowStorage,
  kvAFormat: FloatFormat,
  columns: number,
  rowsMax: number,
): Promise<DecodeMlaInPipeline> {
  const preludes = [
    ...rowPieces(q.format),
    ...floatPieces(kvAFormat),
    ...pieces("plain_scale", "row_norm", "matrix_rows", "float_rows", "decode_in"),
  ];
  const own = floatRowLiterals(columns);
  return compileMatrixRows(
    gpu,
    q,
    columns,
    rowsMax,
    (literals) => decodeMlaInKernel.compile(gpu, {}, preludes, { ...literals, ...own }),
  );
}

export interface DecodeMlaInBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** read: f32 [rowCount][hidden]. */
  readonly scaled: BufferUse;
  /** write: f32 [rowCount][N (nope + shared) | latent + shared]. */
  readonly projected: BufferUse;
}

/** Rows [0, rowCount) of `x`. */
export function decodeMlaIn(
  recorder: Recorder,
  pipelines: DecodeMlaInPipeline,
  { q, kvA }: MlaWeights,
  { x, scaled, projected }: DecodeMlaInBuffers,
  { rowCount, epsilon }: {
    readonly rowCount: number;
    readonly epsilon: number;
  },
): void {
  const { columns, rows: blockRows } = q.spec;
  const floatTiles = Math.ceil(kvA.spec.rows / IN_FLOAT_TILE);
  const { chosen, rowGroups } = forRows(pipelines, rowCount);
  recorder.dispatch(
    chosen.pipeline,
    [x, scaled, readWhole(q), readWhole(kvA), projected],
    {
      row_count: rowCount,
      groups: groupCount(columns),
      columns,
      epsilon,
      block_rows: blockRows,
      scale_stride: scaleStride(columns),
      float_tiles: floatTiles,
      segments: segmentCount(columns),
      float_rows: kvA.spec.rows,
    },
    [(floatTiles + Math.ceil(blockRows / chosen.tile)) * rowGroups],
  );
}
