import type { Reals } from "./formats.ts";

/** sum((found - wanted)^2) / sum(wanted^2); Infinity where exactly one side of a pair is NaN. */
export function normalizedError(found: Reals, wanted: Reals): number {
  if (found.length !== wanted.length) return Infinity;
  let error = 0;
  let power = 0;
  for (let i = 0; i < wanted.length; i++) {
    if (Number.isNaN(wanted[i]!) || Number.isNaN(found[i]!)) {
      if (Number.isNaN(wanted[i]!) !== Number.isNaN(found[i]!)) return Infinity;
      continue;
    }
    error += (found[i]! - wanted[i]!) ** 2;
    power += wanted[i]! ** 2;
  }
  return power === 0 ? error : error / power;
}

/** Largest |found - wanted|, relative to the root mean square of `wanted`. */
export function worstError(found: Reals, wanted: Reals): number {
  let worst = 0;
  let power = 0;
  for (let i = 0; i < wanted.length; i++) {
    worst = Math.max(worst, Math.abs(found[i]! - wanted[i]!));
    power += wanted[i]! ** 2;
  }
  return power === 0 ? worst : worst / Math.sqrt(power / wanted.length);
}
