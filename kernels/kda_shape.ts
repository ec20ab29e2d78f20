import type { KdaShape } from "./types.ts";

/** Sizes of KDA's activations, in floats. */
export interface KdaWidths {
  /** headCount x keyDim: q, k, the retentions. */
  readonly keys: number;
  /** headCount x valueDim: v, the output, its gate. */
  readonly values: number;
  /** q | k | v of one row. */
  readonly mixed: number;
}

export function kdaWidths({ headCount, keyDim, valueDim }: KdaShape): KdaWidths {
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  return { keys, values, mixed: 2 * keys + values };
}
