/**
 * The model's weights on the GPU by key, and as the blocks take them. Keys: runtime/weights.
 *
 * What a fused kernel reads together lies together: q8 and q4 matrices of one input are rows of one
 * matrix (q | k | v, gate | up), the shared expert is the last matrix of the experts' stacks where
 * it has their shape, and the small matrices of a KDA layer share buffers.
 */
import type { DenseWeights, GatedWeights, MoeWeights } from "./feed_forward.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { KdaWeights } from "./kda.ts";
import type { HeadWeights } from "./head.ts";
import { isGrouped, Matrix } from "./matrix.ts";
import type { MlaWeights } from "./mla.ts";
import type { ModelShape, TensorSpec, WeightFormat } from "./types.ts";

/** Where a declared tensor lies: rows from `rowStart` on of matrices from `matrixStart` on. */
interface Place {
  readonly matrix: Matrix;
  readonly matrixStart: number;
  readonly rowStart: number;
}

/** Keys of a layer that become rows of one matrix, in this order, where they are q8 or q4. */
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

/** Small matrices of a layer that share a buffer. */
const TOGETHER: readonly (readonly string[])[] = [
  ["kda.f_a", "kda.g_a", "kda.b"],
  ["kda.f_b", "kda.g_b"],
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
    const aliases = new Map<string, Omit<Place, "matrix"> & { readonly key: string }>();
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
      this.#places.set(key, { matrix, matrixStart: 0, rowStart: 0 });
    }
    for (const { key } of tensors) {
      let place = { key, matrixStart: 0, rowStart: 0 };
      for (let next = aliases.get(place.key); next !== undefined; next = aliases.get(place.key)) {
        place = {
          key: next.key,
          matrixStart: place.matrixStart + next.matrixStart,
          rowStart: place.rowStart + next.rowStart,
        };
      }
      this.#places.set(key, { ...place, matrix: this.get(place.key) });
    }
  }

  /** Copies a piece of a declared tensor, see `Matrix.write`. */
  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const place = this.#place(key);
    place.matrix.write(place.matrixStart + matrix, byteOffset, bytes, place.rowStart);
  }

  /** All scales of one fp8 matrix. */
  writeScales(key: string, matrix: number, scales: Float32Array): void {
    this.#place(key).matrix.writeScales(matrix, scales);
  }

  /** Copies a piece of the scales of a q8 or q4 tensor, see `Matrix.writeGroupScales`. */
  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const place = this.#place(key);
    place.matrix.writeGroupScales(place.matrixStart + matrix, byteOffset, bytes, place.rowStart);
  }

  /** A matrix as it was made: joined ones by their joint key. Throws when there is no such key. */
  get(key: string): Matrix {
    const matrix = this.#matrices.get(key);
    if (matrix === undefined) throw new Error(`use weight "${key}": it was never declared`);
    return matrix;
  }

  /** Formats of the matrices that are used one at a time (false) or in stacks of experts (true). */
  formats(stacks: boolean): Set<WeightFormat> {
    const isStack = /\.moe\.(gate|up|gate_up|down)$/;
    const matrices = [...this.#matrices.values()].filter(({ spec }) =>
      isStack.test(spec.key) === stacks
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

type Aliases = Map<string, Omit<Place, "matrix"> & { readonly key: string }>;

/** Replaces tensors by one of all their rows. Leaves them alone where they are stored unlike. */
function join(
  specs: Map<string, TensorSpec>,
  aliases: Aliases,
  key: string,
  parts: readonly string[],
): void {
  const found = parts.map((part) => specs.get(part)).filter((spec) => spec !== undefined);
  const first = found[0];
  if (first === undefined || found.length < parts.length || !isGrouped(first.format)) return;
  const alike = ({ format, columns, matrices }: TensorSpec) =>
    format === first.format && columns === first.columns && matrices === first.matrices;
  if (!found.every(alike)) return;
  let rowStart = 0;
  for (const spec of found) {
    aliases.set(spec.key, { key, matrixStart: 0, rowStart });
    specs.delete(spec.key);
    rowStart += spec.rows;
  }
  specs.set(key, { ...first, key, rows: rowStart });
}

/** Makes tensor `last` the matrix behind those of `stack`, where it has their shape. */
function append(
  specs: Map<string, TensorSpec>,
  aliases: Aliases,
  stack: string,
  last: string,
): void {
  const [experts, shared] = [specs.get(stack), specs.get(last)];
  if (experts === undefined || shared === undefined || !isGrouped(experts.format)) return;
  const { format, rows, columns } = experts;
  if (shared.format !== format || shared.rows !== rows || shared.columns !== columns) return;
  aliases.set(last, { key: stack, matrixStart: experts.matrices, rowStart: 0 });
  specs.delete(last);
  specs.set(stack, { ...experts, matrices: experts.matrices + shared.matrices });
}
