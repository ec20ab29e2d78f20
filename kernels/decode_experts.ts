import source from "./decode_experts.wgsl" with { type: "text" };
import {
  groupLiterals,
  groupPieces,
  normLiterals,
  pieces,
  rowLiterals,
  rowPieces,
  type RowStorage,
} from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { spread } from "./gpu/groups.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { expertThreads } from "./gpu/tuning.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { groupCount, type Matrix, scaleStride } from "./matrix.ts";
import { onlyPart, readWhole } from "./scratch.ts";

const PARAMS = {
  row_count: "u32",
  groups: "u32",
  columns: "u32",
  epsilon: "f32",
  width: "u32",
  block_quads: "u32",
  scale_stride: "u32",
  tiles: "u32",
  items: "u32",
  choices: "u32",
  even_first: "u32",
} as const;

export interface DecodeExpertsPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  /** Most rows of one expert that a workgroup takes. */
  readonly itemRows: number;
  /** Channels of one workgroup. */
  readonly tile: number;
}

export const decodeExpertsKernel = defineKernel({
  name: "decode_experts",
  source,
  bindings: ["read", "read", "read", "read", "write"],
  params: PARAMS,
});

/** `isGrouped`: rows go by experts, else all meet one matrix. `columns`: the hidden size. */
export async function compileDecodeExperts(
  gpu: Gpu,
  gateUp: RowStorage,
  columns: number,
  isGrouped: boolean,
): Promise<DecodeExpertsPipeline> {
  const preludes = [
    ...rowPieces(gateUp.format),
    ...groupPieces(gateUp.format),
    ...pieces("plain_scale", "sigmoid", "row_norm", "gated_rows"),
  ];
  const { numbers } = gpu.tuning;
  const { up: { lanes }, experts: { rows: itemRows, tile, steps } } = numbers;
  const threads = expertThreads(numbers);
  const literals = {
    ...rowLiterals(gateUp, columns, { lanes, rows: 2 * steps, xRows: itemRows }),
    ...normLiterals(columns, threads),
    ...groupLiterals(gateUp.format, threads),
    TILE_ROWS: tile,
    ROW_STEPS: steps,
    ROW_PARTS: 2 * itemRows,
    OUTPUT_TURNS: tile * itemRows / threads,
    GROUPED: isGrouped ? 1 : 0,
  };
  const pipeline = await decodeExpertsKernel.compile(gpu, {}, preludes, literals);
  return { pipeline, itemRows, tile };
}

export interface DecodeExpertsBuffers {
  /** read: activation groups [rowCount][X_QUADS][groups]. */
  readonly x: BufferUse;
  /** read: `Grouping.order` and `Grouping.tiles`, of `itemRows` pairs each; else anything. */
  readonly order: BufferUse;
  readonly items: BufferUse;
  /** write: activation groups [rowCount][choices][X_QUADS][width / 32]. */
  readonly groups: BufferUse;
}

/** h for rows [0, rowCount) of x; `gateUp`: the stack, whose rows are gate | up. */
export function decodeExperts(
  recorder: Recorder,
  { pipeline, tile }: DecodeExpertsPipeline,
  gateUp: Matrix,
  { x, order, items, groups }: DecodeExpertsBuffers,
  sizes: {
    readonly rowCount: number;
    readonly choices: number;
    /** Most that there can be. */
    readonly itemCount: number;
    readonly epsilon: number;
    readonly evenFirst: number;
  },
): void {
  const { rows, columns } = gateUp.spec;
  const { rowCount, choices, itemCount, epsilon, evenFirst } = sizes;
  const tiles = Math.ceil(rows / 2 / tile);
  recorder.dispatch(
    pipeline,
    [x, order, items, readWhole(gateUp), groups],
    {
      row_count: rowCount,
      groups: groupCount(columns),
      columns,
      epsilon,
      width: rows / 2,
      block_quads: onlyPart(gateUp).blockBytes / 16,
      scale_stride: scaleStride(columns),
      tiles,
      items: itemCount,
      choices,
      even_first: evenFirst,
    },
    spread(tiles * itemCount),
  );
}
