import { silu } from "./activations.ts";
import type { Reals } from "./formats.ts";

/**
 * Depthwise causal convolution and SiLU:
 * y[t][c] = silu(sum_w weight[c][w] u[t - (taps - 1) + w][c]), so the last
 * tap multiplies the current token.
 *
 * u [tokens, channels], weight [channels, taps], tail [taps - 1, channels]: the projections before
 * u, oldest first (zeros for a new sequence). Returns y [tokens, channels] and the next tail.
 */
export function shortConvolution(
  u: Reals,
  weight: Reals,
  tail: Reals,
  channels: number,
): { y: Float64Array; tail: Float64Array } {
  const taps = weight.length / channels;
  const tokens = u.length / channels;
  const history = new Float64Array(tail.length + u.length);
  history.set(tail);
  history.set(u, tail.length);
  const y = new Float64Array(u.length);
  for (let t = 0; t < tokens; t++) {
    for (let c = 0; c < channels; c++) {
      let sum = 0;
      for (let w = 0; w < taps; w++) {
        sum += weight[c * taps + w]! * history[(t + w) * channels + c]!;
      }
      y[t * channels + c] = silu(sum);
    }
  }
  return { y, tail: history.slice(tokens * channels) };
}
