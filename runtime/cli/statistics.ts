/** The little statistics that measurements need. */

/** The middle value, or the mean of the two in the middle. `values` must not be empty. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
}

/** `count` integers in [0, bound), the same for the same seed (a 32-bit xorshift). */
export function randomIntegers(seed: number, bound: number, count: number): number[] {
  let state = (seed + 1) * 0x9e3779b1 >>> 0 || 1;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ state << 5) >>> 0;
    return Math.floor(state / 2 ** 32 * bound);
  });
}

/** A number as text: whole from 100 on, else with one decimal at most. */
export function rounded(value: number): string {
  return (value >= 100 ? Math.round(value) : Number(value.toFixed(1))).toLocaleString("en");
}
