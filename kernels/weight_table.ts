/** The model's weights on the GPU by key, and as the blocks take them. Keys: runtime/weights. */
import type { DenseWeights, GatedWeights, MoeWeights } from "./feed_forward.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { KdaWeights } from "./kda.ts";
import type { LogitsWeights } from "./logits.ts";
import { Matrix } from "./matrix.ts";
import type { MlaWeights } from "./mla.ts";
import type { ModelShape, TensorSpec, WeightFormat } from "./types.ts";

export class WeightTable {
  readonly #matrices = new Map<string, Matrix>();

  /** Allocates every tensor. Throws for a key that comes twice and where memory is refused. */
  constructor(gpu: Gpu, tensors: readonly TensorSpec[]) {
    for (const spec of tensors) {
      if (this.#matrices.has(spec.key)) {
        throw new Error(`declare "${spec.key}": wanted each key once, found it twice`);
      }
      this.#matrices.set(spec.key, Matrix.allocate(gpu, spec));
    }
  }

  /** Throws when `declare` had no such key. */
  get(key: string): Matrix {
    const matrix = this.#matrices.get(key);
    if (matrix === undefined) throw new Error(`use weight "${key}": it was never declared`);
    return matrix;
  }

  /** Formats of the matrices that are used one at a time (false) or in stacks of experts (true). */
  formats(stacks: boolean): Set<WeightFormat> {
    const isStack = /\.moe\.(gate|up|down)$/;
    const matrices = [...this.#matrices.values()].filter(({ spec }) =>
      isStack.test(spec.key) === stacks
    );
    return new Set(matrices.map(({ spec }) => spec.format));
  }

  /** Formats of the MLA layers' kv_b, which is read by kernels of its own. */
  kvBFormats(): Set<WeightFormat> {
    const matrices = [...this.#matrices.values()].filter(({ spec }) => spec.key.endsWith(".kv_b"));
    return new Set(matrices.map(({ spec }) => spec.format));
  }

  logits(): LogitsWeights {
    return { norm: this.get("norm"), head: this.get("head") };
  }

  kda(layer: number): KdaWeights {
    const get = (name: string) => this.get(`${layer}.kda.${name}`);
    return {
      norm: this.get(`${layer}.mixer_norm`),
      q: get("q"),
      k: get("k"),
      v: get("v"),
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
    return {
      norm: this.get(`${layer}.ffn_norm`),
      router: this.get(`${layer}.moe.router`),
      routerBias: this.get(`${layer}.moe.router_bias`),
      experts: this.#gated(`${layer}.moe`),
      shared: shape.moe.sharedIntermediateSize === 0 ? null : this.#gated(`${layer}.shared`),
    };
  }

  #gated(prefix: string): GatedWeights {
    return {
      gate: this.get(`${prefix}.gate`),
      up: this.get(`${prefix}.up`),
      down: this.get(`${prefix}.down`),
    };
  }
}
