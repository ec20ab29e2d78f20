import source from "./decode_choose.wgsl" with { type: "text" };
import { normLiterals, pieces, type RowFormat, xQuads } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { groupCount } from "./matrix.ts";
import type { MoeShape } from "./types.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  choices: "u32",
  experts_per_token: "u32",
  renormalize: "u32",
  routed_scale: "f32",
} as const;

export const CHOICE_THREADS = 256;

export type DecodeChoosePipeline = Pipeline<typeof PARAMS>;

export const decodeChooseKernel = defineKernel({
  name: "decode_choose",
  source,
  bindings: ["read", "read", "read", "write", "write"],
  params: PARAMS,
});

/** Literals of lib/choose_experts.wgsl for workgroups of so many threads; `moe` null: no choice. */
export function choiceLiterals(moe: MoeShape | null, threads: number): Record<string, number> {
  const experts = moe?.expertCount ?? 0;
  const choices = moe?.expertsPerToken ?? 1;
  const blocks = Math.max(1, Math.ceil(experts / 32));
  return {
    EXPERTS: experts,
    CHOICES_MAX: choices,
    CHOOSERS: threads,
    EXPERT_BLOCKS: blocks,
    EXPERT_TURNS: Math.ceil(experts / threads),
    CANDIDATE_QUADS: Math.ceil(blocks * choices / 4),
  };
}

/** For activations of weights of this format; `columns`: the hidden size. */
export function compileDecodeChoose(
  gpu: Gpu,
  format: RowFormat,
  columns: number,
  moe: MoeShape,
): Promise<DecodeChoosePipeline> {
  const preludes = pieces(
    "nan",
    "x_group",
    "limbs",
    "order_key",
    "sigmoid",
    "row_norm",
    "choose_experts",
  );
  const literals = {
    X_QUADS: xQuads(format),
    ...normLiterals(columns, CHOICE_THREADS),
    ...choiceLiterals(moe, CHOICE_THREADS),
  };
  return decodeChooseKernel.compile(gpu, {}, preludes, literals);
}

export interface DecodeChooseBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** read: i32 [rowCount][experts][3]. */
  readonly limbs: BufferUse;
  /** read: f32 [experts]. */
  readonly bias: BufferUse;
  /** write: [rowCount][choices] (expert, weight). */
  readonly chosen: BufferUse;
  /** write: u32 [rowCount][choices]. */
  readonly experts: BufferUse;
}

/** The matrices that work on each of rows [0, rowCount) of x; `choices`: as many a row. */
export function decodeChoose(
  recorder: Recorder,
  pipeline: DecodeChoosePipeline,
  { x, limbs, bias, chosen, experts }: DecodeChooseBuffers,
  moe: MoeShape,
  sizes: {
    readonly rowCount: number;
    readonly columns: number;
    readonly choices: number;
    readonly epsilon: number;
  },
): void {
  const { rowCount, columns, choices, epsilon } = sizes;
  recorder.dispatch(
    pipeline,
    [x, limbs, bias, chosen, experts],
    {
      row_count: rowCount,
      groups: groupCount(columns),
      columns,
      epsilon,
      choices,
      experts_per_token: moe.expertsPerToken,
      renormalize: moe.renormalize ? 1 : 0,
      routed_scale: moe.routedScale,
    },
    [rowCount],
  );
}
