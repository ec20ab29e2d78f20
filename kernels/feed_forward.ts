/**
 * Feed-forward blocks: residual += FFN(RMSNorm(residual)), dense or a mixture of experts.
 *
 * Dense and shared expert: down(silu(gate x) (up x)). Routed: the weighted sum over a token's
 * experts of the same form, in the router's order.
 */
import {
  combineExperts,
  type CombineExpertsPipeline,
  compileCombineExperts,
} from "./combine_experts.ts";
import { ExpertProjections } from "./expert_projection.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import {
  compileGroupTokens,
  groupTokens,
  type GroupTokensPipeline,
  tileLimit,
} from "./group_tokens.ts";
import type { Matrix } from "./matrix.ts";
import { MATVEC_X_ROWS } from "./matvec.ts";
import type { Projections } from "./projection.ts";
import { RmsNorm } from "./rms_norm.ts";
import { compileRouter, route, type RouterPipeline } from "./router.ts";
import { scratch, vectorBuffer } from "./scratch.ts";
import { compileSiluMul, siluMul, type SiluMulPipeline } from "./silu_mul.ts";
import type { Capacity, ModelShape, WeightFormat } from "./types.ts";

/** One gated feed-forward, or a stack of experts. */
export interface GatedWeights {
  /** Rows gate | up [width each, hidden], in one matrix or in two. */
  readonly gateUp: readonly Matrix[];
  /** [hidden, width]. */
  readonly down: Matrix;
}

export interface DenseWeights extends GatedWeights {
  /** f32 [1, hidden]. */
  readonly norm: Matrix;
}

export interface MoeWeights {
  /** f32 [1, hidden]. */
  readonly norm: Matrix;
  /** [experts, hidden]. */
  readonly router: Matrix;
  /** f32 [1, experts]. */
  readonly routerBias: Matrix;
  /**
   * Stacks of as many matrices as the model has experts; one more where the shared expert is the
   * last of them.
   */
  readonly experts: GatedWeights;
  /** null where the model has none, and where it is in the stack. */
  readonly shared: GatedWeights | null;
}

/** residual += down(silu(gate x) (up x)) of rows x, with the scratch that it takes. */
class GatedUnit {
  constructor(
    private readonly projections: Projections,
    private readonly silu: SiluMulPipeline,
    /** f32 [rows][2 width], at least. */
    private readonly gateUp: GPUBuffer,
    /** f32 [rows][width], at least. */
    private readonly product: GPUBuffer,
  ) {}

  encode(
    recorder: Recorder,
    weights: GatedWeights,
    x: GPUBuffer,
    residual: GPUBuffer,
    rowCount: number,
  ): void {
    const { projections, gateUp, product } = this;
    const { rows: hidden, columns: width } = weights.down.spec;
    let offset = 0;
    for (const matrix of weights.gateUp) {
      projections.project(recorder, matrix, x, hidden, gateUp, 2 * width, offset, rowCount, false);
      offset += matrix.spec.rows;
    }
    siluMul(recorder, this.silu, gateUp, product, width, rowCount);
    projections.project(
      recorder,
      weights.down,
      product,
      width,
      residual,
      hidden,
      0,
      rowCount,
      true,
    );
  }
}

/** residual += down(silu(gate x) (up x)) of x = RMSNorm(residual). One for all dense layers. */
export class DenseBlock {
  private constructor(
    private readonly shape: ModelShape,
    private readonly norm: RmsNorm,
    private readonly unit: GatedUnit,
    /** f32 [rows][hidden]. */
    private readonly normed: GPUBuffer,
  ) {}

  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
  ): Promise<DenseBlock> {
    const [norm, silu] = await Promise.all([RmsNorm.create(gpu), compileSiluMul(gpu)]);
    const elements = capacity.rows * shape.denseIntermediateSize;
    const gateUp = scratch(gpu, "dense gate and up", 2 * elements);
    const product = scratch(gpu, "dense product", elements);
    const normed = scratch(gpu, "dense normed", capacity.rows * shape.hiddenSize);
    return new DenseBlock(shape, norm, new GatedUnit(projections, silu, gateUp, product), normed);
  }

  /** residual f32 [rowCount][hidden]. */
  encode(recorder: Recorder, residual: GPUBuffer, rowCount: number, weights: DenseWeights): void {
    const { hiddenSize, normEpsilon } = this.shape;
    normalizeRows(recorder, this.norm, residual, weights.norm, this.normed, {
      width: hiddenSize,
      rowCount,
      epsilon: normEpsilon,
    });
    this.unit.encode(recorder, weights, this.normed, residual, rowCount);
  }
}

interface MoePipelines {
  readonly norm: RmsNorm;
  readonly silu: SiluMulPipeline;
  readonly router: RouterPipeline;
  readonly group: GroupTokensPipeline;
  readonly combine: CombineExpertsPipeline;
  readonly experts: ExpertProjections;
}

/** Scratch of a mixture; a pair is one of a row's choices of an expert. */
interface MoeBuffers {
  /** f32 [rows][hidden]. */
  readonly normed: GPUBuffer;
  /** f32 [rows][experts]. */
  readonly logits: GPUBuffer;
  /** u32, f32 [rows][expertsPerToken], best first. */
  readonly chosen: GPUBuffer;
  readonly weights: GPUBuffer;
  /** u32 [pairs]: pairs by expert. */
  readonly order: GPUBuffer;
  /** u32 [tiles][4]. */
  readonly tiles: GPUBuffer;
  /** f32 [pairs][2 width]; the shared expert takes it too. */
  readonly gateUp: GPUBuffer;
  /** f32 [pairs][width]; the shared expert takes it too. */
  readonly product: GPUBuffer;
  /** f32 [pairs][hidden]. */
  readonly outputs: GPUBuffer;
  /** u32 [MoE layers][experts]. */
  readonly expertUse: GPUBuffer;
}

/** residual += routed experts + shared expert of RMSNorm(residual). One for all MoE layers. */
export class MoeBlock {
  readonly #unit: GatedUnit;
  /** Matrices of the experts' stacks. */
  readonly stackSize: number;
  /** Matrices that work on a token. */
  readonly choices: number;

  private constructor(
    private readonly projections: Projections,
    private readonly shape: ModelShape,
    private readonly pipelines: MoePipelines,
    private readonly buffers: MoeBuffers,
    sharedCount: number,
  ) {
    this.stackSize = shape.moe.expertCount + sharedCount;
    this.choices = shape.moe.expertsPerToken + sharedCount;
    this.#unit = new GatedUnit(projections, pipelines.silu, buffers.gateUp, buffers.product);
  }

  /**
   * `expertFormats`: the formats of the stacks of experts; `sharedCount`: 1 where the shared expert
   * is in the stacks, else 0.
   */
  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
    expertFormats: Iterable<WeightFormat>,
    sharedCount: 0 | 1,
  ): Promise<MoeBlock> {
    const [norm, silu, router, group, combine, experts] = await Promise.all([
      RmsNorm.create(gpu),
      compileSiluMul(gpu),
      compileRouter(gpu),
      compileGroupTokens(gpu, shape.moe.expertCount + sharedCount),
      compileCombineExperts(gpu),
      ExpertProjections.create(gpu, expertFormats, [
        { rows: capacity.rows, columns: shape.hiddenSize },
        {
          rows: capacity.rows * (shape.moe.expertsPerToken + sharedCount),
          columns: shape.moe.intermediateSize,
        },
      ]),
    ]);
    const pipelines = { norm, silu, router, group, combine, experts };
    const buffers = moeBuffers(gpu, shape, capacity, sharedCount);
    return new MoeBlock(projections, shape, pipelines, buffers, sharedCount);
  }

  /** u32 [rows][choices] of the last `encode`, best first, the shared expert last. */
  get chosen(): GPUBuffer {
    return this.buffers.chosen;
  }

  /** f32 [rows][choices] of the last `encode`: the weights of `chosen`. */
  get weights(): GPUBuffer {
    return this.buffers.weights;
  }

  /** u32 [MoE layers][stackSize]: tokens routed to each since the buffer was last cleared. */
  get expertUse(): GPUBuffer {
    return this.buffers.expertUse;
  }

  /** residual f32 [rowCount][hidden]; `moeLayer`: index among the MoE layers, for `expertUse`. */
  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    rowCount: number,
    weights: MoeWeights,
    moeLayer: number,
  ): void {
    const { normed, chosen, outputs, weights: shares } = this.buffers;
    const { hiddenSize, normEpsilon } = this.shape;
    normalizeRows(recorder, this.pipelines.norm, residual, weights.norm, normed, {
      width: hiddenSize,
      rowCount,
      epsilon: normEpsilon,
    });
    this.#route(recorder, rowCount, weights);
    const pairCount = rowCount * this.choices;
    const tileSize = ExpertProjections.tileSize(pairCount, this.stackSize);
    const { order, tiles, expertUse } = this.buffers;
    const useOffset = moeLayer * this.stackSize;
    const grouping = { experts: chosen, order, tiles, expertUse, useOffset };
    groupTokens(recorder, this.pipelines.group, grouping, pairCount, tileSize);
    this.#runExperts(recorder, weights.experts, pairCount, tileSize);
    combineExperts(recorder, this.pipelines.combine, outputs, shares, residual, {
      rowCount,
      choices: this.choices,
      width: hiddenSize,
    });
    if (weights.shared !== null) {
      this.#unit.encode(recorder, weights.shared, normed, residual, rowCount);
    }
  }

  #route(recorder: Recorder, rowCount: number, { router, routerBias }: MoeWeights): void {
    const { normed, logits, chosen, weights } = this.buffers;
    const { hiddenSize: hidden, moe } = this.shape;
    this.projections.project(
      recorder,
      router,
      normed,
      hidden,
      logits,
      moe.expertCount,
      0,
      rowCount,
      false,
    );
    const bias = vectorBuffer(routerBias);
    route(
      recorder,
      this.pipelines.router,
      moe,
      { logits, bias, experts: chosen, weights, choices: this.choices },
      rowCount,
    );
  }

  #runExperts(
    recorder: Recorder,
    { gateUp: inputs, down }: GatedWeights,
    pairCount: number,
    tileSize: number,
  ): void {
    const { normed, gateUp, product, outputs, order, tiles } = this.buffers;
    const { hiddenSize: hidden, moe } = this.shape;
    const { intermediateSize: width } = moe;
    const { experts, silu } = this.pipelines;
    const limit = tileLimit(pairCount, this.stackSize, tileSize);
    const common = { order, tiles, pairCount, tileLimit: limit };
    const inward = {
      ...common,
      x: normed,
      xStride: hidden,
      pairsPerXRow: this.choices,
      y: gateUp,
      yStride: 2 * width,
    };
    let offset = 0;
    for (const matrix of inputs) {
      experts.project(recorder, matrix, { ...inward, yOffset: offset }, tileSize);
      offset += matrix.spec.rows;
    }
    siluMul(recorder, silu, gateUp, product, width, pairCount);
    const outward = { x: product, xStride: width, pairsPerXRow: 1, y: outputs, yStride: hidden };
    experts.project(recorder, down, { ...common, ...outward, yOffset: 0 }, tileSize);
  }
}

function moeBuffers(
  gpu: Gpu,
  shape: ModelShape,
  capacity: Capacity,
  sharedCount: number,
): MoeBuffers {
  const { rows } = capacity;
  const { hiddenSize, moe } = shape;
  const stackSize = moe.expertCount + sharedCount;
  const pairs = rows * (moe.expertsPerToken + sharedCount);
  const elements = Math.max(pairs * moe.intermediateSize, rows * moe.sharedIntermediateSize);
  const moeLayers = shape.layers.filter((layer) => layer.feedForward === "moe").length;
  // The smallest tiles make the most of them.
  const tileCount = tileLimit(pairs, stackSize, MATVEC_X_ROWS);
  return {
    normed: scratch(gpu, "moe normed", rows * hiddenSize),
    logits: scratch(gpu, "moe router logits", rows * moe.expertCount),
    chosen: scratch(gpu, "moe experts", pairs),
    weights: scratch(gpu, "moe weights", pairs),
    order: scratch(gpu, "moe order", pairs),
    tiles: scratch(gpu, "moe tiles", 4 * tileCount),
    gateUp: scratch(gpu, "moe gate and up", 2 * elements),
    product: scratch(gpu, "moe product", elements),
    outputs: scratch(gpu, "moe outputs", pairs * hiddenSize),
    expertUse: scratch(gpu, "expert use", moeLayers * stackSize),
  };
}

function normalizeRows(
  recorder: Recorder,
  norm: RmsNorm,
  x: GPUBuffer,
  weight: Matrix,
  y: GPUBuffer,
  sizes: { readonly width: number; readonly rowCount: number; readonly epsilon: number },
): void {
  const { width, rowCount, epsilon } = sizes;
  norm.normalize(recorder, x, width, vectorBuffer(weight), y, width, width, rowCount, epsilon);
}
