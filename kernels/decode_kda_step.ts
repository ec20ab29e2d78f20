import { LOW_LANES, segmentsOf } from "./decode_kda_gates.ts";
import source from "./decode_kda_step.wgsl" with { type: "text" };
import { floatPieces, groupLiterals, groupPieces, pieces, type RowFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, read, type Recorder } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import { onlyPart } from "./scratch.ts";
import type { KdaShape } from "./types.ts";
import { type FloatFormat, segmentCount } from "./weight_preludes.ts";

const PARAMS = {
  head_count: "u32",
  value_dim: "u32",
  mixed_stride: "u32",
  slices: "u32",
  gate_start: "u32",
  bias_start: "u32",
  norm_start: "u32",
  even_first: "u32",
} as const;

/** Value channels of one workgroup. */
export const STEP_COLUMNS = 32;
/** Partial sums over key channels; threads that share a column. */
const PARTS = 16;
export const STEP_THREADS = STEP_COLUMNS * PARTS;

export type DecodeKdaStepPipeline = Pipeline<typeof PARAMS>;

export const decodeKdaStepKernel = defineKernel({
  name: "decode_kda_step",
  source,
  bindings: ["read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

/** Literals of lib/kda_keys.wgsl. */
export function kdaKeyLiterals(keyDim: number): Record<string, number> {
  return { PARTS, KEY_PART: keyDim / PARTS, SQUARE_TURNS: keyDim / 16 };
}

/** Bytes of workgroup memory, groups included, for f_b and g_b of so many columns. */
export function decodeKdaStepBytes(keyDim: number, ranks: readonly [number, number]): number {
  const [rankSegments, gateSegments] = segmentsOf(ranks);
  const floats = 3 * keyDim + STEP_COLUMNS + LOW_LANES * (keyDim + 40) + 2 * STEP_THREADS;
  return 4 * floats + 80 * (rankSegments + gateSegments) + 12 * STEP_COLUMNS;
}

/** `main`: of the matrix that follows; `keyDim`: a multiple of 32; the rest: of f_b and g_b. */
export function compileDecodeKdaStep(
  gpu: Gpu,
  main: RowFormat,
  gateFormat: FloatFormat,
  keyDim: number,
  ranks: readonly [number, number],
): Promise<DecodeKdaStepPipeline> {
  const preludes = [
    ...floatPieces(gateFormat),
    ...groupPieces(main),
    ...pieces("x_group", "sigmoid", "softplus", "low_rank", "kda_keys", "kda_step_parts"),
  ];
  const [rankSegments, gateSegments] = segmentsOf(ranks);
  const literals = {
    ...kdaKeyLiterals(keyDim),
    LOW_LANES,
    RANK_SEGMENTS: rankSegments,
    GATE_SEGMENTS: gateSegments,
    RANK_TURNS: Math.ceil(keyDim * LOW_LANES / STEP_THREADS),
    RANK_STEPS: Math.ceil(rankSegments / LOW_LANES),
    GATE_STEPS: Math.ceil(gateSegments / LOW_LANES),
    ...groupLiterals(main, STEP_COLUMNS),
  };
  return decodeKdaStepKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeKdaStepBuffers {
  /** read: f32 [rowCount][q | k | v | f_a | g_a | b], as decode_kda_in writes it. */
  readonly mixed: BufferUse;
  /** read: `StepBuffers.singles`. */
  readonly rows: BufferUse;
  /** write: f32 [slots][headCount][keyDim][valueDim]. */
  readonly state: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][headCount valueDim / 32]. */
  readonly groups: BufferUse;
}

/** One token for rows [0, rowCount) of `mixed`. */
export function decodeKdaStep(
  recorder: Recorder,
  pipeline: DecodeKdaStepPipeline,
  weights: Pick<KdaWeights, "fB" | "gB" | "aLog" | "dtBias" | "oNorm">,
  { mixed, rows, state, groups }: DecodeKdaStepBuffers,
  { headCount, keyDim, valueDim }: KdaShape,
  { rowCount, evenFirst }: {
    readonly rowCount: number;
    readonly evenFirst: number;
  },
): void {
  const [fB, gB] = [onlyPart(weights.fB), onlyPart(weights.gB)];
  const [aLog, dtBias, oNorm] = [weights.aLog, weights.dtBias, weights.oNorm].map(onlyPart);
  const rank = weights.fB.spec.columns;
  const gateRank = weights.gB.spec.columns;
  const segmentBytes = weights.fB.strideBytes / segmentCount(rank);
  const slices = valueDim / STEP_COLUMNS;
  recorder.dispatch(
    pipeline,
    [mixed, read(fB.buffer), read(aLog!.buffer), rows, state, groups],
    {
      head_count: headCount,
      value_dim: valueDim,
      mixed_stride: headCount * (2 * keyDim + valueDim) + rank + gateRank + headCount,
      slices,
      gate_start: (gB.offset - fB.offset) / segmentBytes,
      bias_start: (dtBias!.offset - aLog!.offset) / 4,
      norm_start: (oNorm!.offset - aLog!.offset) / 4,
      even_first: evenFirst,
    },
    [headCount * slices, rowCount],
  );
}
