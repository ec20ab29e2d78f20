import { type Reals, roundToInt8Groups } from "./formats.ts";

/** Weights [outputs, inputs] that are multiplied by activations rounded to int8 groups. */
export class IntegerWeights extends Float64Array {}

/**
 * y = x Wᵀ: x [rows, inputs], weight [outputs, inputs], both row-major.
 * Returns [rows, outputs]. The inner width is weight.length / outputs.
 */
export function matmul(x: Reals, weight: Reals, outputs: number): Float64Array {
  const inputs = weight.length / outputs;
  const rows = x.length / inputs;
  const y = new Float64Array(rows * outputs);
  const seen = weight instanceof IntegerWeights ? roundToInt8Groups(x, inputs) : x;
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) {
        sum += seen[row * inputs + i]! * weight[output * inputs + i]!;
      }
      y[row * outputs + output] = sum;
    }
  }
  return y;
}
