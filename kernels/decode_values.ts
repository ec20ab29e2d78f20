import source from "./decode_values.wgsl" with { type: "text" };
import { floatPieces, groupLiterals, groupPieces, pieces, type RowFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import { valueQuads } from "./mla_attention.ts";
import { readScales, readWhole } from "./scratch.ts";
import type { MlaShape } from "./types.ts";
import { type FloatFormat, SCALE_PARAMS, scaleParams, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  row_start: "u32",
  splits: "u32",
  head_count: "u32",
  nope_dim: "u32",
  value_dim: "u32",
  latent_dim: "u32",
  value_quads: "u32",
  segments: "u32",
  slices: "u32",
  even_first: "u32",
  ...SCALE_PARAMS,
} as const;

/** Threads that share a value row. */
const LANES = 8;
/** Value channels of one workgroup. */
const CHANNELS = 32;

export type DecodeValuesPipeline = Pipeline<typeof PARAMS>;

export const decodeValuesKernel = defineKernel({
  name: "decode_values",
  source,
  bindings: ["read", "read", "read", "read", "read", "write"],
  params: PARAMS,
});

/** `main`: of the matrix that follows; `kvBFormat`: of kv_b. */
export function compileDecodeValues(
  gpu: Gpu,
  main: RowFormat,
  kvBFormat: FloatFormat,
  { latentDim }: MlaShape,
): Promise<DecodeValuesPipeline> {
  const preludes = [
    ...floatPieces(kvBFormat),
    ...groupPieces(main),
    ...pieces("x_group", "decode_splits", "split_weights"),
  ];
  const literals = {
    ...groupLiterals(main, CHANNELS),
    LATENT_QUADS: 4 * segmentCount(latentDim),
    LANE_SEGMENTS: Math.ceil(segmentCount(latentDim) / LANES),
  };
  return decodeValuesKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeValuesBuffers {
  /** read: `StepBuffers.singles`. */
  readonly rows: BufferUse;
  /** read: of the rows' splits, as decode_attention writes them. */
  readonly sums: BufferUse;
  readonly maxima: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][headCount valueDim / 32]. */
  readonly groups: BufferUse;
}

/** o of rows [rowStart, + rowCount). */
export function decodeValues(
  recorder: Recorder,
  pipeline: DecodeValuesPipeline,
  kvB: Matrix,
  { rows, sums, maxima, groups }: DecodeValuesBuffers,
  shape: MlaShape,
  { rowStart, rowCount, splits, evenFirst }: {
    readonly rowStart: number;
    readonly rowCount: number;
    /** As for decodeAttention. */
    readonly splits: number;
    readonly evenFirst: number;
  },
): void {
  const { headCount, nopeDim, valueDim, latentDim } = shape;
  const slices = valueDim / CHANNELS;
  recorder.dispatch(
    pipeline,
    [rows, sums, maxima, readWhole(kvB), readScales(kvB), groups],
    {
      row_start: rowStart,
      splits,
      head_count: headCount,
      nope_dim: nopeDim,
      value_dim: valueDim,
      latent_dim: latentDim,
      value_quads: valueQuads(shape),
      segments: segmentCount(latentDim),
      slices,
      even_first: evenFirst,
      ...scaleParams(kvB.spec),
    },
    [headCount * slices, rowCount],
  );
}
