/** Step plans for kernel tests. */
import type { Capacity, StepPlan } from "../../kernels/types.ts";

export interface Segment {
  readonly slot: number;
  readonly rowCount: number;
  readonly past?: number;
  readonly pages?: Uint32Array;
}

/** A step of these segments in order. */
export function planOf(segments: readonly Segment[]): StepPlan {
  let rowStart = 0;
  const sequences = segments.map(({ slot, rowCount, past = 0, pages }) => {
    const sequence = { slot, rowCount, past, pages: pages ?? Uint32Array.of(0), rowStart };
    rowStart += rowCount;
    return sequence;
  });
  return { tokens: new Uint32Array(rowStart), feeds: null, sequences, logits: [] };
}

/** A capacity that just holds these steps; pages are as large as a step without latents needs. */
export function stepCapacity(plans: readonly StepPlan[], slots: number): Capacity {
  const largest = (of: (plan: StepPlan) => number) => Math.max(...plans.map(of));
  return {
    slots,
    pages: 1,
    pageTokens: 1 << 16,
    rows: largest((plan) => plan.tokens.length),
    logitRows: 1,
    logitEdits: 1,
    sequences: largest((plan) => plan.sequences.length),
    pagesPerSequence: 1,
    latentFormat: "f32",
  };
}

/** Rows moved from a plan's order to the step's own, or back. */
export function reordered(
  rows: Float32Array,
  internalRows: Uint32Array,
  back: boolean,
): Float32Array {
  const width = rows.length / internalRows.length;
  const result = new Float32Array(rows.length);
  internalRows.forEach((internal, row) => {
    const [from, to] = back ? [internal, row] : [row, internal];
    result.set(rows.subarray(from * width, (from + 1) * width), to * width);
  });
  return result;
}
