import {
  groupLiterals,
  groupPieces,
  normLiterals,
  pieces,
  rowLiterals,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import { choiceLiterals } from "./decode_choose.ts";
import source from "./decode_up.wgsl" with { type: "text" };
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix, scaleStride } from "./matrix.ts";
import { onlyPart, readWhole } from "./scratch.ts";
import type { MoeShape } from "./types.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  width: "u32",
  block_quads: "u32",
  scale_stride: "u32",
  tiles: "u32",
  choices: "u32",
  experts_per_token: "u32",
  renormalize: "u32",
  routed_scale: "f32",
  use_offset: "u32",
  even_first: "u32",
} as const;

export interface DecodeUpPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  /** Channels of one workgroup. */
  readonly tile: number;
}

export const decodeUpKernel = defineKernel({
  name: "decode_up",
  source,
  bindings: ["read", "read", "read", "read", "write", "write", "write"],
  params: PARAMS,
});

/** `moe` null: a dense block. `columns`: the hidden size. */
export async function compileDecodeUp(
  gpu: Gpu,
  gateUp: RowStorage,
  columns: number,
  moe: MoeShape | null,
): Promise<DecodeUpPipeline> {
  const preludes = [
    ...rowPieces(gateUp.format),
    ...groupPieces(gateUp.format),
    ...pieces(
      "plain_scale",
      "limbs",
      "order_key",
      "sigmoid",
      "row_norm",
      "choose_experts",
      "gated_rows",
    ),
  ];
  const { lanes, tile, chunk } = gpu.tuning.numbers.up;
  const threads = tile * lanes;
  const literals = {
    ...rowLiterals(gateUp, columns, { lanes, rows: 2, chunk }),
    ...normLiterals(columns, threads),
    ...groupLiterals(gateUp.format, tile),
    ...choiceLiterals(moe, threads),
    TILE_ROWS: tile,
    ROW_PARTS: 2,
  };
  return { pipeline: await decodeUpKernel.compile(gpu, {}, preludes, literals), tile };
}

export interface DecodeUpBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** read: i32 [rowCount][experts][3]. */
  readonly limbs: BufferUse;
  /** read: f32 [experts]; anything in a dense block. */
  readonly bias: BufferUse;
  /** write: activation groups [rowCount][choices][X_QUADS][width / 32]. */
  readonly groups: BufferUse;
  /** write: [rowCount][choices] (expert, weight). */
  readonly chosen: BufferUse;
  /** write: u32 [..]. */
  readonly expertUse: BufferUse;
}

/** h for rows [0, rowCount) of x; `gateUp`: the stack, whose rows are gate | up. */
export function decodeUp(
  recorder: Recorder,
  { pipeline, tile }: DecodeUpPipeline,
  gateUp: Matrix,
  { x, limbs, bias, groups, chosen, expertUse }: DecodeUpBuffers,
  moe: MoeShape | null,
  sizes: {
    readonly rowCount: number;
    readonly choices: number;
    readonly useOffset: number;
    readonly epsilon: number;
    readonly evenFirst: number;
  },
): void {
  const { rows, columns } = gateUp.spec;
  const { rowCount, choices, useOffset, epsilon, evenFirst } = sizes;
  const tiles = Math.ceil(rows / 2 / tile);
  recorder.dispatch(
    pipeline,
    [x, limbs, bias, readWhole(gateUp), groups, chosen, expertUse],
    {
      row_count: rowCount,
      groups: groupCount(columns),
      columns,
      epsilon,
      width: rows / 2,
      block_quads: onlyPart(gateUp).blockBytes / 16,
      scale_stride: scaleStride(columns),
      tiles,
      choices,
      experts_per_token: moe?.expertsPerToken ?? 0,
      renormalize: moe?.renormalize ? 1 : 0,
      routed_scale: moe?.routedScale ?? 1,
      use_offset: useOffset,
      even_first: evenFirst,
    },
    [tiles * choices * rowCount],
  );
}
