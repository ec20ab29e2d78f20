/** Logit rows of step plans, and their values. */
import type { LogitRow, StepResult } from "../../runtime/model/device.ts";

/** Rows whose logits are wanted as the model gives them. */
export function plainRows(rows: Iterable<number>): LogitRow[] {
  return Array.from(rows, (row) => ({
    row,
    edits: null,
    temperature: 0,
    target: null,
    mask: null,
  }));
}

/** Numbers from 0 to count - 1. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** All of the first `count` rows, [count, width]. */
export async function wholeRows(result: StepResult, count: number): Promise<Float32Array> {
  const rows: Float32Array[] = [];
  for (let row = 0; row < count; row++) rows.push(await result.readRow(row));
  const values = new Float32Array(rows.reduce((sum, row) => sum + row.length, 0));
  rows.forEach((row, index) => values.set(row, index * row.length));
  return values;
}
