/** Pipelines and activations of the fused kernels for sequences with one row. */
import { compileDecodeAbsorb, type DecodeAbsorbPipeline } from "./decode_absorb.ts";
import {
  compileDecodeAttention,
  DECODE_SPLITS,
  type DecodeAttentionPipeline,
} from "./decode_attention.ts";
import { compileDecodeChoose, type DecodeChoosePipeline } from "./decode_choose.ts";
import { compileDecodeDown, type DecodeDownPipeline } from "./decode_down.ts";
import { compileDecodeEmbed, type DecodeEmbedPipeline } from "./decode_embed.ts";
import { compileDecodeExperts, type DecodeExpertsPipeline } from "./decode_experts.ts";
import type { DecodeFormats } from "./decode_fit.ts";
import { compileDecodeKdaGates, type DecodeKdaGatesPipeline } from "./decode_kda_gates.ts";
import { compileDecodeKdaIn, type DecodeKdaInPipeline } from "./decode_kda_in.ts";
import { compileDecodeKdaStep, type DecodeKdaStepPipeline } from "./decode_kda_step.ts";
import { compileDecodeKdaUpdate, type DecodeKdaUpdatePipeline } from "./decode_kda_update.ts";
import { compileDecodeMlaIn, type DecodeMlaInPipeline } from "./decode_mla_in.ts";
import { compileDecodeOut, type DecodeOutPipeline } from "./decode_out.ts";
import { activationGroups, type RowFormat, type RowStorage } from "./decode_shape.ts";
import { compileDecodeUp, type DecodeUpPipeline } from "./decode_up.ts";
import { compileDecodeValues, type DecodeValuesPipeline } from "./decode_values.ts";
import type { Gpu } from "./gpu/gpu.ts";
import {
  compileGroupTokens,
  type Grouping,
  type GroupTokensPipeline,
  tileLimit,
} from "./group_tokens.ts";
import { kdaWidths } from "./kda_shape.ts";
import { latentQuads } from "./latent_cache.ts";
import { valueQuads } from "./mla_attention.ts";
import { scratch } from "./scratch.ts";
import type { Capacity, ModelShape, WeightFormat } from "./types.ts";

/** Softmaxes of splits that are held at once; a step's rows go through in batches of this size. */
const SPLIT_BYTES = 64 << 20;
/** From here on two more dispatches a mixture of experts pay off, and one more a KDA layer. */
const SEVERAL_ROWS = 4;

export interface DecodePipelines {
  readonly embed: DecodeEmbedPipeline;
  readonly kdaIn: DecodeKdaInPipeline;
  readonly kdaStep: DecodeKdaStepPipeline;
  readonly kdaOut: DecodeOutPipeline;
  readonly mlaIn: DecodeMlaInPipeline;
  readonly absorb: DecodeAbsorbPipeline;
  readonly attention: DecodeAttentionPipeline;
  readonly values: DecodeValuesPipeline;
  readonly mlaOut: DecodeOutPipeline;
  readonly denseUp: DecodeUpPipeline;
  readonly denseDown: DecodeOutPipeline;
  readonly moeUp: DecodeUpPipeline;
  readonly moeDown: DecodeDownPipeline;
  /** Null where there are never SEVERAL_ROWS. */
  readonly several: SeveralPipelines | null;
}

/** For steps with SEVERAL_ROWS or more, whose rows share their gates' weights and go by experts. */
export interface SeveralPipelines {
  readonly kdaGates: DecodeKdaGatesPipeline;
  readonly kdaUpdate: DecodeKdaUpdatePipeline;
  readonly choose: DecodeChoosePipeline;
  readonly group: GroupTokensPipeline;
  readonly denseUp: DecodeExpertsPipeline;
  readonly moeUp: DecodeExpertsPipeline;
}

/** What so many rows go through; null where each goes by itself. */
export function severalFor({ several }: DecodePipelines, rowCount: number) {
  return rowCount < SEVERAL_ROWS ? null : several;
}

/** Activations of the rows of sequences with one row; groups as in lib/x_group.wgsl. */
export interface DecodeBuffers {
  /** [sequences][hidden]: what the next block reads, as groups and as f32. */
  readonly x: GPUBuffer;
  readonly scaled: GPUBuffer;
  /** f32 [sequences][q | k | v | f_a | g_a | b]. */
  readonly mixed: GPUBuffer;
  /** f32 [sequences][retentions [H dk] | output gates [H dv]]. */
  readonly gates: GPUBuffer;
  /** Groups of a mixer's output. */
  readonly o: GPUBuffer;
  /** Groups [sequences][choices][width] of a feed-forward block. */
  readonly h: GPUBuffer;
  /** [sequences][choices] (expert, weight). */
  readonly chosen: GPUBuffer;
  /** What `groupTokens` makes of the experts alone. */
  readonly grouping: Pick<Grouping, "experts" | "order" | "tiles">;
  /** i32 [sequences][experts][3]. */
  readonly limbs: GPUBuffer;
  /** f32, queries | compressed of mla.ts; splits as in lib/decode_splits.wgsl. */
  readonly projected: GPUBuffer;
  readonly absorbed: GPUBuffer;
  readonly sums: GPUBuffer;
  readonly maxima: GPUBuffer;
}

/** Matrices of a mixture of experts, with the shared one. */
export interface ExpertCounts {
  /** That work on a row. */
  readonly choices: number;
  /** That there are. */
  readonly stackSize: number;
}

/** For the formats that `decodeFit` found. */
export async function compileDecode(
  gpu: Gpu,
  shape: ModelShape,
  { pageTokens, pagesPerSequence, latentFormat, sequences }: Capacity,
  formats: DecodeFormats,
  { choices, stackSize }: ExpertCounts,
  embedFormat: WeightFormat,
): Promise<DecodePipelines> {
  const { main, large, low, gates, kvA, kvB, router, ranks } = formats;
  const { hiddenSize: hidden, kda, mla, moe, denseIntermediateSize } = shape;
  const tokens = pageTokens * pagesPerSequence;
  const out = (matrix: RowStorage, columns: number, headDim: number) =>
    compileDecodeOut(gpu, matrix, router, columns, headDim, sequences);
  const [embed, kdaIn, kdaStep, kdaOut, mlaIn, absorb] = await Promise.all([
    compileDecodeEmbed(gpu, embedFormat, main),
    compileDecodeKdaIn(gpu, large.kdaIn, low, hidden, kda, sequences),
    compileDecodeKdaStep(gpu, main, gates, kda.keyDim, ranks),
    out(large.kdaOut, kda.headCount * kda.valueDim, kda.valueDim),
    compileDecodeMlaIn(gpu, large.mlaIn, kvA, hidden, sequences),
    compileDecodeAbsorb(gpu, kvB, latentFormat, mla),
  ]);
  const [attention, values, mlaOut, denseUp, denseDown, moeUp, moeDown] = await Promise.all([
    compileDecodeAttention(gpu, mla, latentFormat, tokens),
    compileDecodeValues(gpu, main, kvB, mla),
    out(large.mlaOut, mla.headCount * mla.valueDim, 0),
    compileDecodeUp(gpu, large.denseUp, hidden, null),
    out(large.denseDown, denseIntermediateSize, 0),
    compileDecodeUp(gpu, large.moeUp, hidden, moe),
    compileDecodeDown(gpu, large.moeDown, moe.intermediateSize, choices),
  ]);
  const kdaPipelines = { embed, kdaIn, kdaStep, kdaOut };
  const mlaPipelines = { mlaIn, absorb, attention, values, mlaOut };
  const several = sequences < SEVERAL_ROWS
    ? null
    : await compileSeveral(gpu, shape, formats, Math.max(1, stackSize));
  return { ...kdaPipelines, ...mlaPipelines, denseUp, denseDown, moeUp, moeDown, several };
}

async function compileSeveral(
  gpu: Gpu,
  { hiddenSize: hidden, kda, moe }: ModelShape,
  { main, large: { denseUp, moeUp }, gates, ranks }: DecodeFormats,
  stackSize: number,
): Promise<SeveralPipelines> {
  return {
    kdaGates: await compileDecodeKdaGates(gpu, gates, kda.keyDim, ranks),
    kdaUpdate: await compileDecodeKdaUpdate(gpu, main, kda.keyDim),
    choose: await compileDecodeChoose(gpu, moeUp.format, hidden, moe),
    group: await compileGroupTokens(gpu, stackSize),
    denseUp: await compileDecodeExperts(gpu, denseUp, hidden, false),
    moeUp: await compileDecodeExperts(gpu, moeUp, hidden, true),
  };
}

/** Splits of all rows together that SPLIT_BYTES hold; at least those of one row. */
export function heldSplits({ mla }: ModelShape, { sequences }: Capacity): number {
  const splitBytes = 16 * mla.headCount * valueQuads(mla);
  const held = Math.min(sequences * DECODE_SPLITS, Math.floor(SPLIT_BYTES / splitBytes));
  return Math.max(DECODE_SPLITS, held);
}

/** Activations of as many rows as there are sequences. */
export function allocateDecode(
  gpu: Gpu,
  shape: ModelShape,
  capacity: Capacity,
  { choices, stackSize }: ExpertCounts,
  splits: number,
  main: RowFormat,
): DecodeBuffers {
  const { hiddenSize: hidden, kda, mla, moe, denseIntermediateSize } = shape;
  const rows = capacity.sequences;
  const groups = (label: string, columns: number) =>
    activationGroups(gpu, `decode ${label}`, rows, columns, main);
  const floats = (label: string, count: number) => scratch(gpu, `decode ${label}`, rows * count);
  const { mixed, keys, values } = kdaWidths(kda);
  const projected = mla.headCount * (mla.nopeDim + mla.sharedKeyDim) + mla.latentDim +
    mla.sharedKeyDim;
  return {
    x: groups("x", hidden),
    scaled: floats("x, f32", hidden),
    mixed: floats("KDA projections", mixed + kda.keyDim + kda.valueDim + kda.headCount),
    gates: floats("KDA gates", keys + values),
    o: groups("mixer output", Math.max(values, mla.headCount * mla.valueDim)),
    h: groups("hidden", Math.max(choices * moe.intermediateSize, denseIntermediateSize)),
    chosen: floats("chosen experts", 2 * choices),
    grouping: {
      experts: floats("experts", choices),
      order: floats("rows by experts", choices),
      tiles: scratch(
        gpu,
        "decode items of experts",
        4 * tileLimit(rows * choices, stackSize, gpu.tuning.numbers.experts.rows),
      ),
    },
    limbs: floats("router sums", Math.max(1, 3 * moe.expertCount)),
    projected: floats("MLA projections", projected),
    absorbed: floats("MLA absorbed queries", mla.headCount * 4 * latentQuads(mla)),
    sums: scratch(gpu, "decode MLA split sums", splits * mla.headCount * 4 * valueQuads(mla)),
    maxima: scratch(gpu, "decode MLA split maxima", splits * mla.headCount * 2),
  };
}
