import { kdaKeyLiterals, STEP_COLUMNS } from "./decode_kda_step.ts";
import source from "./decode_kda_update.wgsl" with { type: "text" };
import { groupLiterals, groupPieces, pieces, type RowFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import { kdaWidths } from "./kda_shape.ts";
import { readWhole } from "./scratch.ts";
import type { KdaShape } from "./types.ts";

const PARAMS = {
  head_count: "u32",
  value_dim: "u32",
  mixed_stride: "u32",
  strength_start: "u32",
  slices: "u32",
  even_first: "u32",
} as const;

/** Partial sums over key channels that one thread has: 1, 2 or 4. */
const RUNS = 1;

export type DecodeKdaUpdatePipeline = Pipeline<typeof PARAMS>;

export const decodeKdaUpdateKernel = defineKernel({
  name: "decode_kda_update",
  source,
  bindings: ["read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

/** `main`: of the matrix that follows; `keyDim`: a multiple of 32. */
export function compileDecodeKdaUpdate(
  gpu: Gpu,
  main: RowFormat,
  keyDim: number,
): Promise<DecodeKdaUpdatePipeline> {
  const preludes = [...groupPieces(main), ...pieces("x_group", "sigmoid", "kda_keys")];
  const literals = { ...kdaKeyLiterals(keyDim), ...groupLiterals(main, STEP_COLUMNS), RUNS };
  return decodeKdaUpdateKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeKdaUpdateBuffers {
  /** read: f32 [rowCount][q | k | v | f_a | g_a | b], as decode_kda_in writes it. */
  readonly mixed: BufferUse;
  /** read: as decode_kda_gates writes them. */
  readonly gates: BufferUse;
  /** read: `StepBuffers.singles`. */
  readonly rows: BufferUse;
  /** write: f32 [slots][headCount][keyDim][valueDim]. */
  readonly state: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][headCount valueDim / 32]. */
  readonly groups: BufferUse;
}

/** One token for rows [0, rowCount) of `mixed`. */
export function decodeKdaUpdate(
  recorder: Recorder,
  pipeline: DecodeKdaUpdatePipeline,
  weights: Pick<KdaWeights, "fB" | "gB" | "oNorm">,
  { mixed, gates, rows, state, groups }: DecodeKdaUpdateBuffers,
  shape: KdaShape,
  { rowCount, evenFirst }: {
    readonly rowCount: number;
    readonly evenFirst: number;
  },
): void {
  const { headCount, valueDim } = shape;
  const slices = valueDim / STEP_COLUMNS;
  const strengthStart = kdaWidths(shape).mixed + weights.fB.spec.columns + weights.gB.spec.columns;
  recorder.dispatch(
    pipeline,
    [mixed, gates, readWhole(weights.oNorm), rows, state, groups],
    {
      head_count: headCount,
      value_dim: valueDim,
      mixed_stride: strengthStart + headCount,
      strength_start: strengthStart,
      slices,
      even_first: evenFirst,
    },
    [headCount * slices, rowCount],
  );
}
