import source from "./decode_embed.wgsl" with { type: "text" };
import { groupLiterals, groupPieces, pieces, type RowFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix } from "./matrix.ts";
import { readScales } from "./scratch.ts";
import type { WeightFormat } from "./types.ts";
import { SCALE_PARAMS, scaleParams, weightPreludes, weightSegments } from "./weight_preludes.ts";

const PARAMS = {
  first_row: "u32",
  weight_rows: "u32",
  row_start: "u32",
  columns: "u32",
  groups: "u32",
  weight_segments: "u32",
  even_first: "u32",
  ...SCALE_PARAMS,
} as const;

const THREADS = 256;

export type DecodeEmbedPipeline = Pipeline<typeof PARAMS>;

export const decodeEmbedKernel = defineKernel({
  name: "decode_embed",
  source,
  bindings: ["read", "read", "read", "read", "write", "write", "write", "read"],
  params: PARAMS,
});

/** `format`: of the embedding; `main`: of the weights that the activations meet. */
export function compileDecodeEmbed(
  gpu: Gpu,
  format: WeightFormat,
  main: RowFormat,
): Promise<DecodeEmbedPipeline> {
  const preludes = [...weightPreludes(format), ...groupPieces(main), ...pieces("x_group")];
  return decodeEmbedKernel.compile(gpu, {}, preludes, groupLiterals(main, THREADS));
}

export interface DecodeEmbedBuffers {
  /** read: u32 [rowStart + rowCount], each below the matrix's rows or FEED and a row of `best`. */
  readonly tokens: BufferUse;
  /** read: f32 [columns]. */
  readonly norm: BufferUse;
  /** write: f32 [rowStart + rowCount][columns]. */
  readonly residual: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][groups]. */
  readonly groups: BufferUse;
  /** write: f32 [rowCount][columns]. */
  readonly scaled: BufferUse;
  /** read: of the step before, see top_tokens.wgsl. */
  readonly best: BufferUse;
}

/** Rows [rowStart, + rowCount) of the residual, and what the first layer reads of them. */
export function decodeEmbed(
  recorder: Recorder,
  pipeline: DecodeEmbedPipeline,
  matrix: Matrix,
  { tokens, norm, residual, groups, scaled, best }: DecodeEmbedBuffers,
  { rowStart, rowCount, evenFirst }: {
    readonly rowStart: number;
    readonly rowCount: number;
    readonly evenFirst: number;
  },
): void {
  const { columns } = matrix.spec;
  for (const part of matrix.parts) {
    recorder.dispatch(
      pipeline,
      [tokens, read(part.buffer), readScales(matrix), norm, residual, groups, scaled, best],
      {
        first_row: rowStart,
        weight_rows: part.rowCount,
        row_start: part.rowStart,
        columns,
        groups: groupCount(columns),
        weight_segments: weightSegments(matrix.spec),
        even_first: evenFirst,
        ...scaleParams(matrix.spec),
      },
      [Math.ceil(columns / THREADS), rowCount],
    );
  }
}
