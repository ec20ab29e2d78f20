/** What the kernels for sequences with one row share: literals, preludes, buffers of groups. */
import type { Gpu } from "./gpu/gpu.ts";
import type { ParamTypes, Pipeline, Prelude } from "./gpu/kernel.ts";
import type { Tuning } from "./gpu/tuning.ts";
import activationGroup from "./lib/activation_group.wgsl" with { type: "text" };
import decodeSplits from "./lib/decode_splits.wgsl" with { type: "text" };
import chooseExperts from "./lib/choose_experts.wgsl" with { type: "text" };
import attentionTile from "./lib/decode_attention_tile.wgsl" with { type: "text" };
import kdaKeys from "./lib/kda_keys.wgsl" with { type: "text" };
import kdaStepParts from "./lib/kda_step_parts.wgsl" with { type: "text" };
import decodeIn from "./lib/decode_in.wgsl" with { type: "text" };
import floatGroup from "./lib/float_group.wgsl" with { type: "text" };
import fp8Rows from "./lib/fp8_rows.wgsl" with { type: "text" };
import matrixRows from "./lib/matrix_rows.wgsl" with { type: "text" };
import floatRows from "./lib/float_rows.wgsl" with { type: "text" };
import gatedRows from "./lib/gated_rows.wgsl" with { type: "text" };
import laneRows from "./lib/lane_rows.wgsl" with { type: "text" };
import lowRank from "./lib/low_rank.wgsl" with { type: "text" };
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
import xGroup from "./lib/x_group.wgsl" with { type: "text" };
import { GROUP_COLUMNS, groupCount, isGrouped, type Matrix } from "./matrix.ts";
import { scratch } from "./scratch.ts";
import type { WeightFormat } from "./types.ts";
import { type FloatFormat, segmentCount, weightPreludes } from "./weight_preludes.ts";

/** Formats of the large matrices that the fused kernels take. */
export type RowFormat = "q8" | "q4" | "fp8";

/** How large matrices of one kind are stored, the same in all layers. */
export interface RowStorage {
  readonly format: RowFormat;
  /** Literals of lib/fp8_rows.wgsl; none for q8 and q4. */
  readonly grid: Readonly<Record<string, number>>;
}

/**
 * Groups of fp8 whose loads a thread has under way: its activations take eight times the registers
 * of integers.
 */
const FP8_CHUNK = 2;

const SOURCES = {
  activation_group: activationGroup,
  choose_experts: chooseExperts,
  decode_attention_tile: attentionTile,
  kda_keys: kdaKeys,
  kda_step_parts: kdaStepParts,
  decode_in: decodeIn,
  decode_splits: decodeSplits,
  float_group: floatGroup,
  float_rows: floatRows,
  fp8_rows: fp8Rows,
  matrix_rows: matrixRows,
  gated_rows: gatedRows,
  lane_rows: laneRows,
  limbs,
  low_rank: lowRank,
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
  x_group: xGroup,
} as const;

/** Groups whose loads a thread has under way for several rows of activations. */
const BATCH_CHUNK = 1;

/** A kernel for one row of activations, and one whose workgroups take `batchRows`. */
export interface ByRows<P> {
  readonly single: P;
  readonly batch: P;
  readonly batchRows: number;
}

/**
 * `compile`: for so many rows of activations a workgroup and `steps` times as many rows of weights
 * a thread; `rowsMax`: rows of a step.
 */
export async function compileByRows<P>(
  gpu: Gpu,
  rowsMax: number,
  compile: (xRows: number, steps: number) => Promise<P>,
): Promise<ByRows<P>> {
  const { rows: batchRows, steps } = gpu.tuning.numbers.batch;
  const single = await compile(1, 1);
  return { single, batch: rowsMax === 1 ? single : await compile(batchRows, steps), batchRows };
}

/** What `rowCount` rows go through, and how many workgroups they take side by side. */
export function forRows<P>(
  { single, batch, batchRows }: ByRows<P>,
  rowCount: number,
): { readonly chosen: P; readonly rowGroups: number } {
  return rowCount === 1
    ? { chosen: single, rowGroups: 1 }
    : { chosen: batch, rowGroups: Math.ceil(rowCount / batchRows) };
}

/** Threads of lib/matrix_rows.wgsl. */
export const MATRIX_THREADS = 128;

/** Rows of weights of one of its workgroups, with `steps` times as many a thread. */
export function matrixTile({ projection: { lanes, rows } }: Tuning, steps: number): number {
  return MATRIX_THREADS / lanes * rows * steps;
}

/** A kernel around lib/matrix_rows.wgsl. */
export type MatrixPipeline<P extends ParamTypes> = ByRows<{
  readonly pipeline: Pipeline<P>;
  /** Rows of the large matrix that one workgroup takes. */
  readonly tile: number;
}>;

/** `compile`: with these literals of the pieces; `storage`, `columns`: of the large matrix. */
export function compileMatrixRows<P extends ParamTypes>(
  gpu: Gpu,
  storage: RowStorage,
  columns: number,
  rowsMax: number,
  compile: (literals: Readonly<Record<string, number>>) => Promise<Pipeline<P>>,
): Promise<MatrixPipeline<P>> {
  const { numbers } = gpu.tuning;
  const { lanes, rows } = numbers.projection;
  return compileByRows(gpu, rowsMax, async (xRows, steps) => {
    const tile = matrixTile(numbers, steps);
    const literals = {
      ...rowLiterals(storage, columns, { lanes, rows: rows * steps, xRows }),
      ...normLiterals(columns, MATRIX_THREADS),
      TILE_ROWS: tile,
      ROW_PARTS: xRows,
    };
    return { pipeline: await compile(literals), tile };
  });
}

/** Pieces of kernels/lib by name, in that order. */
export function pieces(...names: readonly (keyof typeof SOURCES)[]): Prelude[] {
  return names.map((name) => ({ name: `lib/${name}.wgsl`, source: SOURCES[name] }));
}

/** How rows of large matrices are read. */
export function rowPieces(format: RowFormat): Prelude[] {
  if (format === "fp8") return pieces("x_group", "fp8_rows", "lane_rows", "row_sums");
  const source = format === "q4" ? q4Group : q8Group;
  const group = { name: `lib/${format}_group.wgsl`, source };
  return [...pieces("x_group"), group, ...pieces("q_rows", "lane_rows", "row_sums")];
}

/** How activations for weights of this format are written. */
export function groupPieces(format: RowFormat): Prelude[] {
  return pieces("nan", format === "fp8" ? "float_group" : "activation_group");
}

/** How float weights without scales are read. */
export function floatPieces(format: FloatFormat): Prelude[] {
  return [...weightPreludes(format)];
}

/**
 * Literals of lib/lane_rows.wgsl and of what comes before it, for rows of `columns`: `lanes`
 * threads a row, `rows` rows each, for `xRows` rows of activations. With `chunk` a thread has at
 * most as many groups' loads under way; else all, or FP8_CHUNK, or BATCH_CHUNK for several rows.
 */
export function rowLiterals(
  { format, grid }: RowStorage,
  columns: number,
  { lanes, rows = 1, xRows = 1, chunk }: {
    readonly lanes: number;
    readonly rows?: number;
    readonly xRows?: number;
    readonly chunk?: number;
  },
): Record<string, number> {
  const groups = groupCount(columns);
  const full = Math.floor(groups / lanes);
  const most = format === "fp8" ? FP8_CHUNK : xRows > 1 ? BATCH_CHUNK : chunk;
  let together = Math.max(1, Math.min(most ?? 1, full));
  while (full % together !== 0) together--;
  const looped = most === undefined ? 0 : full;
  const rest = groups > full * lanes ? 1 : 0;
  const loop = { LOOPED: looped, CHUNK: together, TAIL: full - looped, REST: rest };
  return { LANES: lanes, ROWS: rows, X_ROWS: xRows, X_QUADS: xQuads(format), ...loop, ...grid };
}

/** Literals of lib/x_group.wgsl and of the piece that writes groups; `threads` have values. */
export function groupLiterals(format: RowFormat, threads: number): Record<string, number> {
  return { X_QUADS: xQuads(format), GROUP_THREADS: threads };
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

/** Activation groups [rows][X_QUADS][columns / 32]. */
export function activationGroups(
  gpu: Gpu,
  label: string,
  rows: number,
  columns: number,
  format: RowFormat,
) {
  return scratch(gpu, label, 4 * xQuads(format) * rows * groupCount(columns));
}

/** Quads of a group of activations for weights of this format. */
export function xQuads(format: WeightFormat): number {
  return format === "fp8" ? 9 : 3;
}

/** Whether activations for weights of this format have their even columns first. */
export function evenFirst(format: WeightFormat): number {
  return format === "q4" ? 1 : 0;
}

/** How `matrix` is stored, or null where lib/lane_rows.wgsl can't take its parts. */
export function rowStorage({ spec, parts, scales }: Matrix): RowStorage | null {
  const { format, rows, columns, scale } = spec;
  if (columns % GROUP_COLUMNS !== 0) return null;
  if (isGrouped(format)) return { format, grid: {} };
  if (format !== "fp8" || scale === null || scales.buffer !== parts[0]!.buffer) return null;
  const { rowsPerScale, columnsPerScale } = scale;
  const scaleColumns = Math.ceil(columns / columnsPerScale);
  const single = scaleColumns === 1;
  if (!single && columnsPerScale % GROUP_COLUMNS !== 0) return null;
  return {
    format,
    grid: {
      ROWS_PER_SCALE: Math.min(rowsPerScale, rows),
      GROUPS_PER_SCALE: single ? groupCount(columns) : columnsPerScale / GROUP_COLUMNS,
      SCALE_COLUMNS: scaleColumns,
      SCALE_WORD: scales.offset / 4,
    },
  };
}
