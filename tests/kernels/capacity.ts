import type { Capacity } from "../../kernels/types.ts";

/** A capacity for tests of blocks. */
export const CAPACITY: Capacity = {
  slots: 4,
  pages: 16,
  pageTokens: 16,
  rows: 400,
  logitRows: 64,
  logitEdits: 64,
  sequences: 4,
  pagesPerSequence: 8,
  latentFormat: "f32",
};
