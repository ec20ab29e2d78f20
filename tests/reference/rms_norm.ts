import type { Reals } from "./formats.ts";

/**
 * RMS norm of each row: weight * x / sqrt(mean(x^2) + epsilon).
 * x [rows, width], weight [width]; returns [rows, width].
 */
export function rmsNorm(x: Reals, weight: Reals, epsilon: number): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[start + i]! ** 2;
    const factor = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y[start + i] = x[start + i]! * factor * weight[i]!;
  }
  return y;
}

/**
 * KDA's output norm: RMS norm over each head's channels, then a sigmoid gate.
 * o and gateLogits [rows * heads, valueDim], weight [valueDim]; returns the shape of o.
 */
export function gatedRmsNorm(
  o: Reals,
  weight: Reals,
  gateLogits: Reals,
  epsilon: number,
): Float64Array {
  return rmsNorm(o, weight, epsilon).map((value, i) => value / (1 + Math.exp(-gateLogits[i]!)));
}
