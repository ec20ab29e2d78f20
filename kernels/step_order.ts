/** From the order of a plan's rows to that of the tables, and back. */

/** Elements of a plan's rows where the tables have the rows. */
export function inInternalOrder<T extends Uint32Array | Int32Array>(plan: T, rows: Uint32Array): T {
  const result = plan.slice() as T;
  rows.forEach((internal, row) => result[internal] = plan[row]!);
  return result;
}

/** [rows][width] of the tables in the order of the plan. */
export function inPlanOrder<T extends Uint32Array | Float32Array>(
  values: T,
  rows: Uint32Array,
  width: number,
): T {
  const result = values.slice() as T;
  rows.forEach((internal, row) => {
    result.set(values.subarray(internal * width, (internal + 1) * width), row * width);
  });
  return result;
}

/**
 * What the router chose for the rows of the tables, [rows][routed]: `experts`, `weights`
 * [..][choices] of the first rows, `pairs` [..][choices] (expert, weight) of the others. A shared
 * expert, which may be the last choice, is no choice of the router.
 */
export function routedChoices(
  experts: Uint32Array,
  weights: Float32Array,
  pairs: Float32Array,
  choices: number,
  routed: number,
): { readonly experts: Uint32Array; readonly weights: Float32Array } {
  const words = new Uint32Array(pairs.buffer, pairs.byteOffset, pairs.length);
  const isRouted = (_: number, index: number) => index % choices < routed;
  const isEven = (_: number, index: number) => index % 2 === 0;
  return {
    experts: Uint32Array.from([...experts, ...words.filter(isEven)].filter(isRouted)),
    weights: Float32Array.from(
      [...weights, ...pairs.filter((_, i) => i % 2 === 1)].filter(isRouted),
    ),
  };
}
