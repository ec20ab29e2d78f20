/** What the kernels for sequences with one row share: literals, preludes, buffers of groups. */
import type { Gpu } from "./gpu/gpu.ts";
import type { Prelude } from "./gpu/kernel.ts";
import activationGroup from "./lib/activation_group.wgsl" with { type: "text" };
import decodeSplits from "./lib/decode_splits.wgsl" with { type: "text" };
import chooseExperts from "./lib/choose_experts.wgsl" with { type: "text" };
import attentionTile from "./lib/decode_attention_tile.wgsl" with { type: "text" };
import kdaStepParts from "./lib/kda_step_parts.wgsl" with { type: "text" };
import decodeIn from "./lib/decode_in.wgsl" with { type: "text" };
import integerRow from "./lib/integer_row.wgsl" with { type: "text" };
import floatRows from "./lib/float_rows.wgsl" with { type: "text" };
import limbs from "./lib/limbs.wgsl" with { type: "text" };
import nan from "./lib/nan.wgsl" with { type: "text" };
import orderKey from "./lib/order_key.wgsl" with { type: "text" };
import plainScale from "./lib/plain_scale.wgsl" with { type: "text" };
import q4Group from "./lib/q4_group.wgsl" with { type: "text" };
import q8Group from "./lib/q8_group.wgsl" with { type: "text" };
import residualEnd from "./lib/residual_end.wgsl" with { type: "text" };
import qRows from "./lib/q_rows.wgsl" with { type: "text" };
import rowNorm from "./lib/row_norm.wgsl" with { type: "text" };
import rowSums from "./lib/row_sums.wgsl" with { type: "text" };
import sigmoid from "./lib/sigmoid.wgsl" with { type: "text" };
import splitWeights from "./lib/split_weights.wgsl" with { type: "text" };
import softplus from "./lib/softplus.wgsl" with { type: "text" };
import { groupCount } from "./matrix.ts";
import { scratch } from "./scratch.ts";
import { type FloatFormat, segmentCount, weightPreludes } from "./weight_preludes.ts";

export type GroupedFormat = "q8" | "q4";

const SOURCES = {
  activation_group: activationGroup,
  choose_experts: chooseExperts,
  decode_attention_tile: attentionTile,
  kda_step_parts: kdaStepParts,
  decode_in: decodeIn,
  decode_splits: decodeSplits,
  float_rows: floatRows,
  integer_row: integerRow,
  limbs,
  nan,
  order_key: orderKey,
  plain_scale: plainScale,
  q_rows: qRows,
  residual_end: residualEnd,
  row_norm: rowNorm,
  row_sums: rowSums,
  sigmoid,
  softplus,
  split_weights: splitWeights,
} as const;

/** Pieces of kernels/lib by name, in that order. */
export function pieces(...names: readonly (keyof typeof SOURCES)[]): Prelude[] {
  return names.map((name) => ({ name: `lib/${name}.wgsl`, source: SOURCES[name] }));
}

/** How rows of q8 and q4 are read. */
export function groupedPieces(format: GroupedFormat): Prelude[] {
  const source = format === "q4" ? q4Group : q8Group;
  return [{ name: `lib/${format}_group.wgsl`, source }, ...pieces("q_rows", "row_sums")];
}

/** How float weights without scales are read. */
export function floatPieces(format: FloatFormat): Prelude[] {
  return [...weightPreludes(format)];
}

/**
 * Literals of lib/q_rows.wgsl for rows of `columns`: `lanes` threads a row, `rows` rows each. With
 * `chunk` a thread has at most as many groups' loads under way, else all.
 */
export function rowLiterals(
  columns: number,
  lanes: number,
  rows: number,
  chunk?: number,
): Record<string, number> {
  const groups = groupCount(columns);
  const full = Math.floor(groups / lanes);
  let together = Math.max(1, Math.min(chunk ?? 1, full));
  while (full % together !== 0) together--;
  const looped = chunk === undefined ? 0 : full;
  const rest = groups > full * lanes ? 1 : 0;
  const loop = { LOOPED: looped, CHUNK: together, TAIL: full - looped, REST: rest };
  return { LANES: lanes, ROWS: rows, ...loop };
}

/** Literals of lib/row_norm.wgsl. */
export function normLiterals(columns: number, threads: number): Record<string, number> {
  const quads = Math.ceil(Math.min(threads, groupCount(columns)) / 4);
  return { NORM_THREADS: threads, NORM_QUADS: quads };
}

/** Literals of lib/float_rows.wgsl. */
export function floatRowLiterals(columns: number): Record<string, number> {
  return { SEGMENT_TURNS: Math.ceil(segmentCount(columns) / 32) };
}

/** Activation groups [rows][columns / 32][3 quads]. */
export function activationGroups(gpu: Gpu, label: string, rows: number, columns: number) {
  return scratch(gpu, label, 12 * rows * groupCount(columns));
}

/** Whether activations for weights of this format have their even columns first. */
export function evenFirst(format: string): number {
  return format === "q4" ? 1 : 0;
}
