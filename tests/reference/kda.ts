/** Kimi Delta Attention, token by token, in f64. */
import { sigmoid, softplus } from "./activations.ts";
import type { Reals } from "./formats.ts";
import { matmul } from "./matmul.ts";
import { gatedRmsNorm } from "./rms_norm.ts";
import { shortConvolution } from "./short_conv.ts";

/** Added to the sum of squares when q and k are normalised. */
export const L2_EPSILON = 1e-6;

/** x / sqrt(sum(x^2) + 1e-6) * scale over each row of `width` values; the shape of x. */
export function l2Normalize(x: Reals, width: number, scale: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[start + i]! ** 2;
    const factor = scale / Math.sqrt(squares + L2_EPSILON);
    for (let i = 0; i < width; i++) y[start + i] = x[start + i]! * factor;
  }
  return y;
}

/**
 * Log-decay g = -exp(aLog[h]) softplus(a + dtBias) <= 0.
 * a [tokens, heads, keyDim], aLog [heads], dtBias [heads, keyDim]; the shape of a.
 */
export function logDecay(a: Reals, aLog: Reals, dtBias: Reals): Float64Array {
  const channels = dtBias.length;
  const keyDim = channels / aLog.length;
  return Float64Array.from(a, (value, i) => {
    const channel = i % channels;
    return -Math.exp(aLog[Math.floor(channel / keyDim)]!) * softplus(value + dtBias[channel]!);
  });
}

/** Sizes of the recurrence. */
export interface KdaSizes {
  readonly heads: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/**
 * The recurrence, per head with S [keyDim, valueDim]:
 *
 *   S <- diag(exp g) S;  e = v - S^T k;  S <- S + beta k e^T;  o = S^T q
 *
 * q (normalised and scaled), k (normalised), g [tokens, heads, keyDim];
 * v [tokens, heads, valueDim]; beta [tokens, heads];
 * state [heads, keyDim, valueDim]. Returns o [tokens, heads, valueDim] and the new
 * state; the given state is left alone.
 */
export function kdaRecurrence(
  sizes: KdaSizes,
  q: Reals,
  k: Reals,
  v: Reals,
  g: Reals,
  beta: Reals,
  state: Reals,
): { o: Float64Array; state: Float64Array } {
  const { heads, keyDim, valueDim } = sizes;
  const next = Float64Array.from(state);
  const o = new Float64Array(v.length);
  const tokens = v.length / (heads * valueDim);
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const keys = (t * heads + h) * keyDim;
      const values = (t * heads + h) * valueDim;
      for (let j = 0; j < valueDim; j++) {
        const at = (d: number) => (h * keyDim + d) * valueDim + j;
        let predicted = 0;
        for (let d = 0; d < keyDim; d++) {
          next[at(d)] = next[at(d)]! * Math.exp(g[keys + d]!);
          predicted += next[at(d)]! * k[keys + d]!;
        }
        const error = beta[t * heads + h]! * (v[values + j]! - predicted);
        for (let d = 0; d < keyDim; d++) {
          next[at(d)] = next[at(d)]! + k[keys + d]! * error;
          o[values + j] = o[values + j]! + next[at(d)]! * q[keys + d]!;
        }
      }
    }
  }
  return { o, state: next };
}

/** Weights of one KDA mixer; shapes as in the list of weight names. */
export interface KdaWeights {
  readonly q: Reals;
  readonly k: Reals;
  readonly v: Reals;
  readonly qConv: Reals;
  readonly kConv: Reals;
  readonly vConv: Reals;
  readonly aLog: Reals;
  readonly dtBias: Reals;
  readonly fA: Reals;
  readonly fB: Reals;
  readonly b: Reals;
  readonly gA: Reals;
  readonly gB: Reals;
  readonly oNorm: Reals;
  readonly o: Reals;
}

/** State of a sequence: recurrent [heads, keyDim, valueDim], convolution [taps - 1, q | k | v]. */
export interface KdaMixerState {
  readonly recurrent: Float64Array;
  readonly convolution: Float64Array;
}

/** The state of a new sequence. */
export function kdaZeroState(sizes: KdaSizes, taps: number): KdaMixerState {
  const { heads, keyDim, valueDim } = sizes;
  return {
    recurrent: new Float64Array(heads * keyDim * valueDim),
    convolution: new Float64Array((taps - 1) * heads * (2 * keyDim + valueDim)),
  };
}

/** The whole mixer over one sequence's next tokens: x [tokens, hidden], already normalised. */
export function kdaMixer(
  sizes: KdaSizes,
  weights: KdaWeights,
  x: Reals,
  hidden: number,
  state: KdaMixerState,
  epsilon: number,
): { y: Float64Array; state: KdaMixerState } {
  const { heads, keyDim, valueDim } = sizes;
  const keyChannels = heads * keyDim;
  const valueChannels = heads * valueDim;
  const widths = [keyChannels, keyChannels, valueChannels];
  const total = 2 * keyChannels + valueChannels;
  const taps = weights.qConv.length / keyChannels;
  const nextTail = new Float64Array((taps - 1) * total);
  const convolve = (projection: Reals, convolution: Reals, part: number) => {
    const width = widths[part]!;
    const offset = part * keyChannels;
    const tail = columns(state.convolution, total, offset, width);
    const u = matmul(x, projection, width);
    const result = shortConvolution(u, convolution, tail, width);
    for (let i = 0; i < result.tail.length; i++) {
      nextTail[Math.floor(i / width) * total + offset + (i % width)] = result.tail[i]!;
    }
    return result.y;
  };
  const q = l2Normalize(convolve(weights.q, weights.qConv, 0), keyDim, keyDim ** -0.5);
  const k = l2Normalize(convolve(weights.k, weights.kConv, 1), keyDim, 1);
  const v = convolve(weights.v, weights.vConv, 2);
  const lowRank = (down: Reals, up: Reals, outputs: number) =>
    matmul(matmul(x, down, down.length / hidden), up, outputs);
  const g = logDecay(lowRank(weights.fA, weights.fB, keyChannels), weights.aLog, weights.dtBias);
  const beta = matmul(x, weights.b, heads).map(sigmoid);
  const { o, state: recurrent } = kdaRecurrence(sizes, q, k, v, g, beta, state.recurrent);
  const gate = lowRank(weights.gA, weights.gB, valueChannels);
  const normed = gatedRmsNorm(o, weights.oNorm, gate, epsilon);
  return {
    y: matmul(normed, weights.o, hidden),
    state: { recurrent, convolution: nextTail },
  };
}

/** Columns [offset, offset + width) of a matrix with `total` columns. */
function columns(x: Reals, total: number, offset: number, width: number): Float64Array {
  const rows = x.length / total;
  const part = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) part[row * width + i] = x[row * total + offset + i]!;
  }
  return part;
}
