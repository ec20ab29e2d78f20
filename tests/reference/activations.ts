/** 1 / (1 + e^-x). */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** x sigmoid(x). */
export function silu(x: number): number {
  return x * sigmoid(x);
}

/** ln(1 + e^x), with softplus(x) = x for x > 20 (the reference implementation's shortcut). */
export function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x));
}
