/** Which models the fused kernels for sequences with one row take. */
import { type RowFormat, type RowStorage, rowStorage } from "./decode_shape.ts";
import { fitsWorkgroups } from "./decode_workgroups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { isGrouped, type Matrix } from "./matrix.ts";
import type { ModelShape } from "./types.ts";
import type { FloatFormat } from "./weight_preludes.ts";
import type { WeightTable } from "./weight_table.ts";

/** Large matrices by the kernels that read them. */
const LARGE_KINDS = [
  "kdaIn",
  "kdaOut",
  "mlaIn",
  "mlaOut",
  "denseUp",
  "denseDown",
  "moeUp",
  "moeDown",
] as const;
type LargeKind = typeof LARGE_KINDS[number];

/** Formats of the weights, the same in all layers. */
export interface DecodeFormats {
  /** Of the large matrices, and how each kind of them is stored. */
  readonly main: RowFormat;
  readonly large: Readonly<Record<LargeKind, RowStorage>>;
  /**
   * Of f_a, g_a and b; f_b and g_b; kv_a; kv_b; the routers. All but kv_b are f32 where they have
   * scales or differ, which `WeightTable.widen` brings about.
   */
  readonly low: FloatFormat;
  readonly gates: FloatFormat;
  readonly kvA: FloatFormat;
  readonly kvB: FloatFormat;
  readonly router: FloatFormat;
  /** Columns of f_b and of g_b, multiples of 16. */
  readonly ranks: readonly [number, number];
}

/**
 * The formats of a model's weights where the fused kernels can take them, else null: large matrices
 * all q8, all q4 or all fp8 and each in one binding, those of one kind with equal grids of scales,
 * small ones float and kv_b everywhere alike, heads and widths multiples of 32, one shared expert
 * of an expert's size or none.
 */
export function decodeFit(gpu: Gpu, shape: ModelShape, table: WeightTable): DecodeFormats | null {
  const { kda, mla, moe, hiddenSize, denseIntermediateSize } = shape;
  const widths = [hiddenSize, kda.keyDim, kda.valueDim, mla.valueDim, denseIntermediateSize];
  if ([...widths, moe.intermediateSize].some((width) => width % 32 !== 0)) return null;
  if (kda.convolutionTaps < 2) return null;
  if (moe.sharedIntermediateSize > 0 && table.sharedCount(shape) === 0) return null;
  const { large, small } = matricesOf(shape, table);
  const storages = storagesOf(large);
  if (storages === null) return null;
  const ranks = ranksOf(shape, table);
  if (ranks === null) return null;
  if (!fitsWorkgroups(gpu.limits, gpu.tuning.numbers, shape, ranks)) return null;
  const all = Object.values(small).flat();
  if (all.some(({ spec, parts }) => isGrouped(spec.format) || parts.length !== 1)) return null;
  const [kvB = "f32", ...others] = new Set(small.kvB.map(({ spec }) => spec.format as FloatFormat));
  if (others.length > 0) return null;
  const [low, gates] = [plainFormat(small.low), plainFormat(small.gates)];
  const [kvA, router] = [plainFormat(small.kvA), plainFormat(small.router)];
  return { ...storages, low, gates, kvA, kvB, router, ranks };
}

/** The format of float matrices without scales where they have one, else f32. */
function plainFormat(matrices: readonly Matrix[]): FloatFormat {
  const [first, ...others] = new Set(matrices.map(({ spec }) => spec.format as FloatFormat));
  const isPlain = others.length === 0 && matrices.every(({ spec }) => spec.scale === null);
  return isPlain && first !== undefined ? first : "f32";
}

interface Matrices {
  /** What one dispatch of a layer reads. */
  readonly large: Record<LargeKind, (readonly Matrix[])[]>;
  readonly small: Record<Exclude<keyof DecodeFormats, "main" | "large" | "ranks">, Matrix[]>;
}

/** How the large matrices are stored; null where they are not joined or unlike one another. */
function storagesOf(large: Matrices["large"]): Pick<DecodeFormats, "main" | "large"> | null {
  const found: Partial<Record<LargeKind, RowStorage>> = {};
  for (const kind of LARGE_KINDS) {
    for (const [matrix, ...others] of large[kind]) {
      const storage = rowStorage(matrix!);
      if (storage === null || others.length > 0 || matrix!.parts.length !== 1) return null;
      const known = found[kind] ??= storage;
      if (JSON.stringify(known) !== JSON.stringify(storage)) return null;
    }
  }
  const main = Object.values(found)[0]?.format;
  if (main === undefined || Object.values(found).some(({ format }) => format !== main)) return null;
  const entries = LARGE_KINDS.map((kind) => [kind, found[kind] ?? { format: main, grid: {} }]);
  return { main, large: Object.fromEntries(entries) };
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
  const large: Matrices["large"] = {
    kdaIn: [],
    kdaOut: [],
    mlaIn: [],
    mlaOut: [],
    denseUp: [],
    denseDown: [],
    moeUp: [],
    moeDown: [],
  };
  const small: Matrices["small"] = { low: [], gates: [], kvA: [], kvB: [], router: [] };
  shape.layers.forEach(({ mixer, feedForward }, layer) => {
    if (mixer === "kda") {
      const { qkv, o, fA, gA, b, fB, gB } = table.kda(layer);
      large.kdaIn.push(qkv);
      large.kdaOut.push([o]);
      small.low.push(fA, gA, b);
      small.gates.push(fB, gB);
    } else {
      const { q, o, kvA, kvB } = table.mla(layer);
      large.mlaIn.push([q]);
      large.mlaOut.push([o]);
      small.kvA.push(kvA);
      small.kvB.push(kvB);
    }
    if (feedForward === "moe") {
      const { experts, router } = table.moe(layer, shape);
      large.moeUp.push(experts.gateUp);
      large.moeDown.push([experts.down]);
      small.router.push(router);
    } else {
      const { gateUp, down } = table.dense(layer);
      large.denseUp.push(gateUp);
      large.denseDown.push([down]);
    }
  });
  return { large, small };
}
