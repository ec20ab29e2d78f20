/** Which models the fused kernels for sequences with one row take. */
import { decodeAttentionBytes } from "./decode_attention.ts";
import type { GroupedFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { isGrouped, type Matrix } from "./matrix.ts";
import type { ModelShape } from "./types.ts";
import type { FloatFormat } from "./weight_preludes.ts";
import type { WeightTable } from "./weight_table.ts";

/** Formats of the weights, the same in all layers. */
export interface DecodeFormats {
  /** Of the large matrices. */
  readonly main: GroupedFormat;
  /** Of f_a, g_a and b; f_b and g_b; kv_a; kv_b; the routers. */
  readonly low: FloatFormat;
  readonly gates: FloatFormat;
  readonly kvA: FloatFormat;
  readonly kvB: FloatFormat;
  readonly router: FloatFormat;
  /** Columns of f_b and of g_b, multiples of 16. */
  readonly ranks: readonly [number, number];
}

/** Bytes of workgroup memory of decode_up beside what its choice of experts takes. */
const WORKGROUP_BYTES = 8 * 1_024;
/** Threads of the largest workgroup. */
const THREADS_MAX = 1_024;

/**
 * The formats of a model's weights where the fused kernels can take them, else null: large matrices
 * all q8 or all q4 and each in one binding, small ones float without scales, heads and widths
 * multiples of 32, one shared expert of an expert's size or none.
 */
export function decodeFit(gpu: Gpu, shape: ModelShape, table: WeightTable): DecodeFormats | null {
  const { kda, mla, moe, hiddenSize, denseIntermediateSize } = shape;
  const widths = [hiddenSize, kda.keyDim, kda.valueDim, mla.valueDim, denseIntermediateSize];
  if ([...widths, moe.intermediateSize].some((width) => width % 32 !== 0)) return null;
  if (kda.convolutionTaps < 2) return null;
  if (moe.sharedIntermediateSize > 0 && table.sharedCount(shape) === 0) return null;
  const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = gpu.limits;
  if (maxComputeInvocationsPerWorkgroup < THREADS_MAX) return null;
  const blocks = Math.ceil(moe.expertCount / 32);
  const choiceBytes = blocks * (4 * 32 + 12 * moe.expertsPerToken);
  const needed = Math.max(WORKGROUP_BYTES + choiceBytes, decodeAttentionBytes(shape.mla));
  if (needed > maxComputeWorkgroupStorageSize) return null;
  const { large, small } = matricesOf(shape, table);
  const main = large[0]?.spec.format;
  if (main === undefined || !isGrouped(main)) return null;
  if (large.some(({ spec, parts }) => spec.format !== main || parts.length !== 1)) return null;
  const ranks = ranksOf(shape, table);
  if (ranks === null) return null;
  const formats: Partial<Record<keyof DecodeFormats, FloatFormat>> = {};
  for (const [kind, matrices] of Object.entries(small)) {
    for (const { spec, parts } of matrices) {
      const known = formats[kind as keyof DecodeFormats] ?? spec.format;
      const isPlain = !isGrouped(spec.format) && spec.scale === null && parts.length === 1;
      if (!isPlain || known !== spec.format) return null;
      formats[kind as keyof DecodeFormats] = spec.format as FloatFormat;
    }
  }
  const { low = "f32", gates = "f32", kvA = "f32", kvB = "f32", router = "f32" } = formats;
  return { main, low, gates, kvA, kvB, router, ranks };
}

interface Matrices {
  readonly large: Matrix[];
  readonly small: Record<Exclude<keyof DecodeFormats, "main" | "ranks">, Matrix[]>;
}

/** The low ranks of the KDA layers' gates; null where they differ or are no multiples of 16. */
function ranksOf({ layers }: ModelShape, table: WeightTable): [number, number] | null {
  let ranks: [number, number] = [0, 0];
  for (const [layer, { mixer }] of layers.entries()) {
    if (mixer !== "kda") continue;
    const { fB, gB } = table.kda(layer);
    const [rank, gateRank] = [fB.spec.columns, gB.spec.columns];
    const isOther = ranks[0] !== 0 && (ranks[0] !== rank || ranks[1] !== gateRank);
    if (isOther || rank % 16 !== 0 || gateRank % 16 !== 0) return null;
    ranks = [rank, gateRank];
  }
  return ranks;
}

function matricesOf(shape: ModelShape, table: WeightTable): Matrices {
  const large: Matrix[] = [];
  const small: Matrices["small"] = { low: [], gates: [], kvA: [], kvB: [], router: [] };
  shape.layers.forEach(({ mixer, feedForward }, layer) => {
    if (mixer === "kda") {
      const { qkv, o, fA, gA, b, fB, gB } = table.kda(layer);
      large.push(...qkv, o);
      small.low.push(fA, gA, b);
      small.gates.push(fB, gB);
    } else {
      const { q, o, kvA, kvB } = table.mla(layer);
      large.push(q, o);
      small.kvA.push(kvA);
      small.kvB.push(kvB);
    }
    if (feedForward === "moe") {
      const { experts, router } = table.moe(layer, shape);
      large.push(...experts.gateUp, experts.down);
      small.router.push(router);
    } else {
      const { gateUp, down } = table.dense(layer);
      large.push(...gateUp, down);
    }
  });
  return { large, small };
}
