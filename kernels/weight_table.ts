/**
 * The model's weights on the GPU by key, and as the blocks take them. Keys: runtime/weights.
 *
 * What a fused kernel reads together lies together: q8, q4 and fp8 matrices of one input are rows
 * of one matrix (q | k | v, gate | up), the shared expert is the last matrix of the experts' stacks
 * where it has their shape, and the small matrices of a KDA layer share buffers. Grids of scales
 * are joined as they are, or the matrices are not.
 */
import type { DecodeFormats } from "./decode_fit.ts";
import { rowStorage } from "./decode_shape.ts";
import type { DenseWeights, GatedWeights, MoeWeights } from "./feed_forward.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import type { HeadWeights } from "./head.ts";
import { isGrouped, Matrix } from "./matrix.ts";
import type { MlaWeights } from "./mla.ts";
import type { ModelShape, TensorSpec, WeightFormat } from "./types.ts";
import type { FloatFormat } from "./weight_preludes.ts";
import { widenRows } from "./widen_rows.ts";

/** Where a declared tensor lies: rows from `rowStart` on of matrices from `matrixStart` on. */
interface Place {
  readonly matrix: Matrix;
  readonly matrixStart: number;
  readonly rowStart: number;
  readonly rowCount: number;
}

/** Keys of a layer that become rows of one matrix, in this order, where they are q8, q4 or fp8. */
const JOINED: readonly (readonly [string, readonly string[]])[] = [
  ["kda.qkv", ["kda.q", "kda.k", "kda.v"]],
  ["dense.gate_up", ["dense.gate", "dense.up"]],
  ["moe.gate_up", ["moe.gate", "moe.up"]],
  ["shared.gate_up", ["shared.gate", "shared.up"]],
];

/** Stacks of experts behind which the shared expert's matrix of the same shape is put. */
const STACKED: readonly (readonly [string, string])[] = [
  ["moe.gate_up", "shared.gate_up"],
  ["moe.down", "shared.down"],
];

const LOW = ["kda.f_a", "kda.g_a", "kda.b"] as const;
const GATES = ["kda.f_b", "kda.g_b"] as const;

/** Small matrices of a layer that share a buffer. */
const TOGETHER: readonly (readonly string[])[] = [
  LOW,
  GATES,
  ["kda.q_conv", "kda.k_conv", "kda.v_conv"],
  ["kda.a_log", "kda.dt_bias", "kda.o_norm"],
];

export class WeightTable {
  readonly #places = new Map<string, Place>();
  readonly #matrices = new Map<string, Matrix>();

  /** Allocates every tensor. Throws for a key that comes twice and where memory is refused. */
  constructor(gpu: Gpu, tensors: readonly TensorSpec[]) {
    const specs = new Map<string, TensorSpec>();
    for (const spec of tensors) {
      if (specs.has(spec.key)) {
        throw new Error(`declare "${spec.key}": wanted each key once, found it twice`);
      }
      specs.set(spec.key, spec);
    }
    const layers = new Set(tensors.map(({ key }) => /^\d+\./.exec(key)?.[0] ?? ""));
    layers.delete("");
    const aliases: Aliases = new Map();
    for (const layer of layers) {
      for (const [name, parts] of JOINED) {
        join(specs, aliases, `${layer}${name}`, parts.map((p) => `${layer}${p}`));
      }
      for (const [stack, last] of STACKED) {
        append(specs, aliases, `${layer}${stack}`, `${layer}${last}`);
      }
      for (const names of TOGETHER) this.#allocateTogether(gpu, specs, layer, names);
    }
    for (const [key, spec] of specs) {
      if (!this.#matrices.has(key)) this.#matrices.set(key, Matrix.allocate(gpu, spec));
    }
    for (const [key, matrix] of this.#matrices) {
      this.#places.set(key, { matrix, matrixStart: 0, rowStart: 0, rowCount: matrix.spec.rows });
    }
    for (const { key, rows: rowCount } of tensors) {
      let place = { key, matrixStart: 0, rowStart: 0 };
      for (let next = aliases.get(place.key); next !== undefined; next = aliases.get(place.key)) {
        place = {
          key: next.key,
          matrixStart: place.matrixStart + next.matrixStart,
          rowStart: place.rowStart + next.rowStart,
        };
      }
      this.#places.set(key, { ...place, rowCount, matrix: this.get(place.key) });
    }
  }

  /** Copies a piece of a declared tensor, see `Matrix.write`. */
  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const place = this.#place(key);
    place.matrix.write(place.matrixStart + matrix, byteOffset, bytes, place.rowStart);
  }

  /** All scales of one fp8 matrix. */
  writeScales(key: string, matrix: number, scales: Float32Array): void {
    const { matrix: stored, matrixStart, rowStart, rowCount } = this.#place(key);
    stored.writeScales(matrixStart + matrix, scales, rowStart, rowCount);
  }

  /** Copies a piece of the scales of a q8 or q4 tensor, see `Matrix.writeGroupScales`. */
  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const place = this.#place(key);
    place.matrix.writeGroupScales(place.matrixStart + matrix, byteOffset, bytes, place.rowStart);
  }

  /**
   * Turns those small matrices that fused kernels take as f32 into it, once all is written.
   * `formats`: what `decodeFit` found.
   */
  async widen(
    gpu: Gpu,
    recorder: Recorder,
    { layers }: ModelShape,
    { low, gates, kvA, router }: Pick<DecodeFormats, "low" | "gates" | "kvA" | "router">,
  ): Promise<void> {
    const kinds = [[low, LOW], [gates, GATES], [kvA, ["mla.kv_a"]], [router, ["moe.router"]]];
    const released = new Set<GPUBuffer>();
    for (const layer of layers.keys()) {
      for (const [format, names] of kinds as [FloatFormat, readonly string[]][]) {
        const old = names.map((name) => this.#matrices.get(`${layer}.${name}`));
        const found = old.filter((matrix) => matrix !== undefined);
        if (found.every(({ spec }) => spec.format === format && spec.scale === null)) continue;
        const wide = await widenRows(gpu, recorder, `${layer}.${names.join(" ")}`, found);
        for (const matrix of wide) this.#matrices.set(matrix.spec.key, matrix);
        for (const { parts, scales } of found) {
          for (const { buffer } of [...parts, scales]) released.add(buffer);
        }
      }
    }
    recorder.submit();
    for (const buffer of released) gpu.release(buffer);
  }

  /** A matrix as it was made: joined ones by their joint key. Throws when there is no such key. */
  get(key: string): Matrix {
    const matrix = this.#matrices.get(key);
    if (matrix === undefined) throw new Error(`use weight "${key}": it was never declared`);
    return matrix;
  }

  /**
   * Formats of the matrices that rows are projected by, one at a time (false) or in stacks of
   * experts (true); without those that only have kernels of their own.
   */
  formats(stacks: boolean): Set<WeightFormat> {
    const isStack = /\.moe\.(gate|up|gate_up|down)$/;
    const isOther = /^embed$|norm$|_conv$|_bias$|_log$|\.kv_b$/;
    const hasOwnHead = rowStorage(this.get("head")) !== null;
    const matrices = [...this.#matrices.values()].filter(({ spec: { key } }) =>
      isStack.test(key) === stacks && !isOther.test(key) && !(hasOwnHead && key === "head")
    );
    return new Set(matrices.map(({ spec }) => spec.format));
  }

  /** Most columns of any q8 or q4 matrix. */
  groupedColumns(): number {
    const grouped = [...this.#matrices.values()].filter(({ spec }) => isGrouped(spec.format));
    return Math.max(0, ...grouped.map(({ spec }) => spec.columns));
  }

  /** Formats of the MLA layers' kv_b, which is read by kernels of its own. */
  kvBFormats(): Set<WeightFormat> {
    const matrices = [...this.#matrices.values()].filter(({ spec }) => spec.key.endsWith(".kv_b"));
    return new Set(matrices.map(({ spec }) => spec.format));
  }

  logits(): HeadWeights {
    return { norm: this.get("norm"), head: this.get("head") };
  }

  kda(layer: number): KdaWeights {
    const get = (name: string) => this.get(`${layer}.kda.${name}`);
    return {
      norm: this.get(`${layer}.mixer_norm`),
      qkv: this.#joinedOr(`${layer}.kda.qkv`, ["q", "k", "v"].map((n) => `${layer}.kda.${n}`)),
      qConv: get("q_conv"),
      kConv: get("k_conv"),
      vConv: get("v_conv"),
      aLog: get("a_log"),
      dtBias: get("dt_bias"),
      fA: get("f_a"),
      fB: get("f_b"),
      b: get("b"),
      gA: get("g_a"),
      gB: get("g_b"),
      oNorm: get("o_norm"),
      o: get("o"),
    };
  }

  mla(layer: number): MlaWeights {
    const get = (name: string) => this.get(`${layer}.mla.${name}`);
    return {
      norm: this.get(`${layer}.mixer_norm`),
      q: get("q"),
      kvA: get("kv_a"),
      kvNorm: get("kv_norm"),
      kvB: get("kv_b"),
      o: get("o"),
    };
  }

  dense(layer: number): DenseWeights {
    return { norm: this.get(`${layer}.ffn_norm`), ...this.#gated(`${layer}.dense`) };
  }

  moe(layer: number, shape: ModelShape): MoeWeights {
    const experts = this.#gated(`${layer}.moe`);
    const stacked = experts.down.spec.matrices > shape.moe.expertCount;
    return {
      norm: this.get(`${layer}.ffn_norm`),
      router: this.get(`${layer}.moe.router`),
      routerBias: this.get(`${layer}.moe.router_bias`),
      experts,
      shared: shape.moe.sharedIntermediateSize === 0 || stacked
        ? null
        : this.#gated(`${layer}.shared`),
    };
  }

  /** 1 where the MoE layers' shared expert is the last matrix of the experts' stacks, else 0. */
  sharedCount({ layers, moe }: ModelShape): 0 | 1 {
    const layer = layers.findIndex(({ feedForward }) => feedForward === "moe");
    if (layer < 0) return 0;
    return this.get(`${layer}.moe.down`).spec.matrices > moe.expertCount ? 1 : 0;
  }

  #gated(prefix: string): GatedWeights {
    return {
      gateUp: this.#joinedOr(`${prefix}.gate_up`, [`${prefix}.gate`, `${prefix}.up`]),
      down: this.get(`${prefix}.down`),
    };
  }

  #joinedOr(key: string, parts: readonly string[]): readonly Matrix[] {
    const joined = this.#matrices.get(key);
    return joined === undefined ? parts.map((part) => this.get(part)) : [joined];
  }

  #place(key: string): Place {
    const place = this.#places.get(key);
    if (place === undefined) throw new Error(`use weight "${key}": it was never declared`);
    return place;
  }

  #allocateTogether(
    gpu: Gpu,
    specs: ReadonlyMap<string, TensorSpec>,
    layer: string,
    names: readonly string[],
  ): void {
    const found = names.map((name) => specs.get(`${layer}${name}`));
    const small = found.filter((spec) => spec !== undefined);
    if (small.length < names.length || small.some(({ format }) => isGrouped(format))) return;
    for (const matrix of Matrix.allocateTogether(gpu, `${layer}${names.join(" ")}`, small)) {
      this.#matrices.set(matrix.spec.key, matrix);
    }
  }
}

type Aliases = Map<string, Pick<Place, "matrixStart" | "rowStart"> & { readonly key: string }>;

/** Replaces tensors by one of all their rows. Leaves them alone where they are stored unlike. */
function join(
  specs: Map<string, TensorSpec>,
  aliases: Aliases,
  key: string,
  parts: readonly string[],
): void {
  const found = parts.map((part) => specs.get(part)).filter((spec) => spec !== undefined);
  const first = found[0];
  if (first === undefined || found.length < parts.length || !isJoinable(first)) return;
  const scale = tightGrid(first);
  const alike = (spec: TensorSpec) =>
    spec.format === first.format && spec.columns === first.columns &&
    spec.matrices === first.matrices && sameGrid(tightGrid(spec), scale);
  if (!found.every(alike)) return;
  const splits = ({ rows }: TensorSpec) => scale !== null && rows % scale.rowsPerScale !== 0;
  if (found.slice(0, -1).some(splits)) return;
  let rowStart = 0;
  for (const spec of found) {
    aliases.set(spec.key, { key, matrixStart: 0, rowStart });
    specs.delete(spec.key);
    rowStart += spec.rows;
  }
  specs.set(key, { ...first, key, scale, rows: rowStart });
}

/** Makes tensor `last` the matrix behind those of `stack`, where it has their shape. */
function append(
  specs: Map<string, TensorSpec>,
  aliases: Aliases,
  stack: string,
  last: string,
): void {
  const [experts, shared] = [specs.get(stack), specs.get(last)];
  if (experts === undefined || shared === undefined || !isJoinable(experts)) return;
  const { format, rows, columns } = experts;
  if (shared.format !== format || shared.rows !== rows || shared.columns !== columns) return;
  if (!sameGrid(tightGrid(shared), tightGrid(experts))) return;
  aliases.set(last, { key: stack, matrixStart: experts.matrices, rowStart: 0 });
  specs.delete(last);
  specs.set(stack, { ...experts, matrices: experts.matrices + shared.matrices });
}

/** Whether there are kernels that gain from it. */
function isJoinable({ format, scale }: TensorSpec): boolean {
  return isGrouped(format) || (format === "fp8" && scale !== null);
}

/** The grid of scales, its cells no larger than the matrix. */
function tightGrid({ rows, columns, scale }: TensorSpec): TensorSpec["scale"] {
  return scale && {
    rowsPerScale: Math.min(rows, scale.rowsPerScale),
    columnsPerScale: Math.min(columns, scale.columnsPerScale),
  };
}

function sameGrid(a: TensorSpec["scale"], b: TensorSpec["scale"]): boolean {
  return a?.rowsPerScale === b?.rowsPerScale && a?.columnsPerScale === b?.columnsPerScale;
}
