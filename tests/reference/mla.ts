/** Multi-head latent attention without positions, expanded form, in f64. */
import type { Reals } from "./formats.ts";
import { matmul } from "./matmul.ts";
import { rmsNorm } from "./rms_norm.ts";

/** Sizes of one MLA mixer. */
export interface MlaSizes {
  readonly heads: number;
  readonly latentDim: number;
  readonly nopeDim: number;
  readonly sharedKeyDim: number;
  readonly valueDim: number;
}

/** Weights of one MLA mixer; shapes as in the list of weight names. */
export interface MlaWeights {
  readonly q: Reals;
  readonly kvA: Reals;
  readonly kvNorm: Reals;
  readonly kvB: Reals;
  readonly o: Reals;
}

/**
 * Latent rows of x [tokens, hidden]: norm(c) | shared key, [tokens, latentDim + sharedKeyDim].
 * The shared key is not normalised.
 */
export function mlaLatents(
  sizes: MlaSizes,
  weights: MlaWeights,
  x: Reals,
  latentEpsilon: number,
): Float64Array {
  const { latentDim, sharedKeyDim } = sizes;
  const width = latentDim + sharedKeyDim;
  const rows = matmul(x, weights.kvA, width);
  for (let start = 0; start < rows.length; start += width) {
    const latent = rows.subarray(start, start + latentDim);
    latent.set(rmsNorm(latent, weights.kvNorm, latentEpsilon));
  }
  return rows;
}

/**
 * Attention of the last tokens of a sequence over all of its latents, in the expanded form:
 * every latent is turned into per-head keys and values first.
 *
 * q [tokens, heads, nopeDim + sharedKeyDim]; latents [past + tokens, latentDim + sharedKeyDim], of
 * which the last `tokens` belong to q's rows; kvB [heads, nopeDim + valueDim, latentDim].
 * Returns [tokens, heads, valueDim]. Scale 1 / sqrt(nopeDim + sharedKeyDim).
 */
export function mlaAttention(
  sizes: MlaSizes,
  q: Reals,
  latents: Reals,
  kvB: Reals,
): Float64Array {
  const { heads, latentDim, nopeDim, sharedKeyDim, valueDim } = sizes;
  const queryDim = nopeDim + sharedKeyDim;
  const width = latentDim + sharedKeyDim;
  const expandedDim = nopeDim + valueDim;
  const tokens = q.length / (heads * queryDim);
  const positions = latents.length / width;
  const past = positions - tokens;
  const codes = new Float64Array(positions * latentDim);
  for (let j = 0; j < positions; j++) {
    codes.set(latents.subarray(j * width, j * width + latentDim), j * latentDim);
  }
  const expanded = matmul(codes, kvB, heads * expandedDim);
  const out = new Float64Array(tokens * heads * valueDim);
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const query = (t * heads + h) * queryDim;
      const scores = new Float64Array(past + t + 1);
      for (let j = 0; j < scores.length; j++) {
        const key = (j * heads + h) * expandedDim;
        let sum = 0;
        for (let i = 0; i < nopeDim; i++) sum += q[query + i]! * expanded[key + i]!;
        for (let i = 0; i < sharedKeyDim; i++) {
          sum += q[query + nopeDim + i]! * latents[j * width + latentDim + i]!;
        }
        scores[j] = sum / Math.sqrt(queryDim);
      }
      const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = scores.map((score) => Math.exp(score - largest));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let j = 0; j < scores.length; j++) {
        const value = (j * heads + h) * expandedDim + nopeDim;
        for (let i = 0; i < valueDim; i++) {
          const at = (t * heads + h) * valueDim + i;
          out[at] = out[at]! + (weights[j]! / total) * expanded[value + i]!;
        }
      }
    }
  }
  return out;
}

/**
 * The whole mixer over one sequence's next tokens: x [tokens, hidden], already normalised;
 * `latents` of the past [past, latentDim + sharedKeyDim]; `store` rounds a latent the way the cache
 * does (identity for f32). Returns y [tokens, hidden] and all latents [past + tokens, ...].
 */
export function mlaMixer(
  sizes: MlaSizes,
  weights: MlaWeights,
  x: Reals,
  hidden: number,
  latents: Reals,
  latentEpsilon: number,
  store: (value: number) => number = (value) => value,
): { y: Float64Array; latents: Float64Array } {
  const { heads, nopeDim, sharedKeyDim } = sizes;
  const added = mlaLatents(sizes, weights, x, latentEpsilon).map(store);
  const all = new Float64Array(latents.length + added.length);
  all.set(latents);
  all.set(added, latents.length);
  const q = matmul(x, weights.q, heads * (nopeDim + sharedKeyDim));
  const y = matmul(mlaAttention(sizes, q, all, weights.kvB), weights.o, hidden);
  return { y, latents: all };
}
