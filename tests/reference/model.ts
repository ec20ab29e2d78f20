/** A whole Kimi-Linear model in f64, block by block, for one sequence at a time. */
import type { Reals } from "./formats.ts";
import {
  kdaMixer,
  type KdaMixerState,
  type KdaSizes,
  type KdaWeights,
  kdaZeroState,
} from "./kda.ts";
import { matmul } from "./matmul.ts";
import { mlaMixer, type MlaSizes, type MlaWeights } from "./mla.ts";
import { feedForward, type FeedForwardWeights, mixtureOfExperts, type MoeWeights } from "./moe.ts";
import { rmsNorm } from "./rms_norm.ts";

/** The sizes that the reference needs; `ModelShape` of the device seam has them all. */
export interface ReferenceShape {
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly layers: readonly {
    readonly mixer: "kda" | "mla";
    readonly feedForward: "dense" | "moe";
  }[];
  readonly normEpsilon: number;
  readonly latentNormEpsilon: number;
  readonly kda: {
    readonly headCount: number;
    readonly keyDim: number;
    readonly valueDim: number;
    readonly convolutionTaps: number;
  };
  readonly mla: {
    readonly headCount: number;
    readonly latentDim: number;
    readonly nopeDim: number;
    readonly sharedKeyDim: number;
    readonly valueDim: number;
  };
  readonly moe: {
    readonly expertCount: number;
    readonly expertsPerToken: number;
    readonly sharedIntermediateSize: number;
    readonly routedScale: number;
    readonly renormalize: boolean;
  };
}

/** Gives a weight by its key (and the expert's index), as real values. */
export type WeightSource = (key: string, matrix?: number) => Reals;

/** State of one sequence: per layer the KDA state or the latents so far. */
export interface ReferenceState {
  readonly kda: (KdaMixerState | null)[];
  readonly latents: Float64Array[];
}

/** What one block left behind. */
export interface BlockTrace {
  readonly name: string;
  /** [tokens, hidden] after the block. */
  readonly residual: Float64Array;
  /** Of a MoE block, [tokens, expertsPerToken]. */
  readonly experts?: Uint32Array;
  readonly weights?: Float64Array;
}

/** The state of a new sequence. */
export function referenceZeroState(shape: ReferenceShape): ReferenceState {
  return {
    kda: shape.layers.map((layer) =>
      layer.mixer === "kda" ? kdaZeroState(kdaSizes(shape), shape.kda.convolutionTaps) : null
    ),
    latents: shape.layers.map(() => new Float64Array(0)),
  };
}

function kdaSizes(shape: ReferenceShape): KdaSizes {
  return { heads: shape.kda.headCount, keyDim: shape.kda.keyDim, valueDim: shape.kda.valueDim };
}

function mlaSizes(shape: ReferenceShape): MlaSizes {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape.mla;
  return { heads: headCount, latentDim, nopeDim, sharedKeyDim, valueDim };
}

function kdaWeights(weight: WeightSource, layer: number): KdaWeights {
  const of = (name: string) => weight(`${layer}.kda.${name}`);
  return {
    ...{ q: of("q"), k: of("k"), v: of("v") },
    ...{ qConv: of("q_conv"), kConv: of("k_conv"), vConv: of("v_conv") },
    ...{ aLog: of("a_log"), dtBias: of("dt_bias"), fA: of("f_a"), fB: of("f_b"), b: of("b") },
    ...{ gA: of("g_a"), gB: of("g_b"), oNorm: of("o_norm"), o: of("o") },
  };
}

function mlaWeights(weight: WeightSource, layer: number): MlaWeights {
  const of = (name: string) => weight(`${layer}.mla.${name}`);
  return { q: of("q"), kvA: of("kv_a"), kvNorm: of("kv_norm"), kvB: of("kv_b"), o: of("o") };
}

function feedForwardWeights(weight: WeightSource, prefix: string, matrix = 0): FeedForwardWeights {
  const of = (name: string) => weight(`${prefix}.${name}`, matrix);
  return { gate: of("gate"), up: of("up"), down: of("down") };
}

function moeWeights(shape: ReferenceShape, weight: WeightSource, layer: number): MoeWeights {
  return {
    router: weight(`${layer}.moe.router`),
    routerBias: weight(`${layer}.moe.router_bias`),
    experts: Array.from(
      { length: shape.moe.expertCount },
      (_, expert) => feedForwardWeights(weight, `${layer}.moe`, expert),
    ),
    shared: shape.moe.sharedIntermediateSize === 0
      ? null
      : feedForwardWeights(weight, `${layer}.shared`),
  };
}

/**
 * Runs the sequence's next tokens; `state` advances in place. `store` rounds latents as the cache
 * does. Returns the residual stream after the embedding and after every block, and the logits of
 * every token, [tokens, vocabulary].
 */
export function referenceForward(
  shape: ReferenceShape,
  weight: WeightSource,
  tokens: readonly number[],
  state: ReferenceState,
  store: (value: number) => number = (value) => value,
): { blocks: BlockTrace[]; logits: Float64Array } {
  const hidden = shape.hiddenSize;
  const embedding = weight("embed");
  let residual = Float64Array.from(
    { length: tokens.length * hidden },
    (_, i) => embedding[tokens[Math.floor(i / hidden)]! * hidden + (i % hidden)]!,
  );
  const blocks: BlockTrace[] = [{ name: "embed", residual }];
  const add = (y: Float64Array) => (residual = residual.map((value, i) => value + y[i]!));
  shape.layers.forEach((kind, layer) => {
    const x = rmsNorm(residual, weight(`${layer}.mixer_norm`), shape.normEpsilon);
    if (kind.mixer === "kda") {
      const weights = kdaWeights(weight, layer);
      const before = state.kda[layer]!;
      const result = kdaMixer(kdaSizes(shape), weights, x, hidden, before, shape.normEpsilon);
      state.kda[layer] = result.state;
      blocks.push({ name: `${layer}.kda`, residual: add(result.y) });
    } else {
      const weights = mlaWeights(weight, layer);
      const sizes = mlaSizes(shape);
      const epsilon = shape.latentNormEpsilon;
      const result = mlaMixer(sizes, weights, x, hidden, state.latents[layer]!, epsilon, store);
      state.latents[layer] = result.latents;
      blocks.push({ name: `${layer}.mla`, residual: add(result.y) });
    }
    const z = rmsNorm(residual, weight(`${layer}.ffn_norm`), shape.normEpsilon);
    if (kind.feedForward === "dense") {
      const y = feedForward(feedForwardWeights(weight, `${layer}.dense`), z, hidden);
      blocks.push({ name: `${layer}.dense`, residual: add(y) });
    } else {
      const result = mixtureOfExperts(shape.moe, moeWeights(shape, weight, layer), z, hidden);
      const { experts, weights } = result;
      blocks.push({ name: `${layer}.moe`, residual: add(result.y), experts, weights });
    }
  });
  const last = rmsNorm(residual, weight("norm"), shape.normEpsilon);
  return { blocks, logits: matmul(last, weight("head"), shape.vocabularySize) };
}
