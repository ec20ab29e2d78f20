/** Whether a capacity or a step can be run, said before any memory is touched. */
import type { Capacity, ModelShape, StepPlan, StepSequence } from "./cpu_types.ts";

/** Throws unless every bound is a whole number that makes sense. */
export function checkCapacity(capacity: Capacity): void {
  const { latentFormat, ...bounds } = capacity;
  for (const [name, value] of Object.entries(bounds)) {
    if (!Number.isInteger(value) || value < 1 || value > 0x7fff_ffff) {
      throw new Error(`configure "${name}": wanted a whole number >= 1, found ${value}`);
    }
  }
  if (latentFormat !== "f16" && latentFormat !== "f32") {
    throw new Error(`configure "latentFormat": wanted "f16" or "f32", found "${latentFormat}"`);
  }
}

function atMost(what: string, found: number, limit: number): void {
  if (found > limit) throw new Error(`begin step: wanted at most ${limit} ${what}, found ${found}`);
}

/** Throws unless the step fits `capacity` and names only things that exist. */
export function checkPlan(plan: StepPlan, capacity: Capacity, shape: ModelShape): void {
  const { tokens, feeds, sequences, logits } = plan;
  if (feeds !== null) throw new Error("begin step: wanted all tokens known, found feeds");
  atMost("rows", tokens.length, capacity.rows);
  atMost("logit rows", logits.length, capacity.logitRows);
  atMost("sequences", sequences.length, capacity.sequences);
  for (const token of tokens) {
    if (token >= shape.vocabularySize) {
      throw new Error(
        `begin step: wanted token ids below ${shape.vocabularySize}, found ${token}`,
      );
    }
  }
  let row = 0;
  const slots = new Set<number>();
  for (const sequence of sequences) {
    if (sequence.rowStart !== row) {
      throw new Error(`begin step: wanted a sequence at row ${row}, found ${sequence.rowStart}`);
    }
    checkSequence(sequence, capacity);
    if (slots.has(sequence.slot)) {
      throw new Error(`begin step: slot ${sequence.slot} belongs to two sequences`);
    }
    slots.add(sequence.slot);
    row += sequence.rowCount;
  }
  if (row !== tokens.length) {
    throw new Error(`begin step: wanted sequences over ${tokens.length} rows, found ${row}`);
  }
  let last = -1;
  for (const { row: logitRow } of logits) {
    if (logitRow <= last || logitRow >= row) {
      throw new Error(
        `begin step: wanted ascending logit rows below ${row}, found ${logitRow} after ${last}`,
      );
    }
    last = logitRow;
  }
}

function checkSequence(sequence: StepSequence, capacity: Capacity): void {
  const { slot, rowCount, past, pages } = sequence;
  checkSlot("begin step", slot, capacity);
  if (!Number.isInteger(rowCount) || rowCount < 1) {
    throw new Error(`begin step: wanted at least 1 row in slot ${slot}, found ${rowCount}`);
  }
  if (!Number.isSafeInteger(past) || past < 0) {
    throw new Error(`begin step: wanted past >= 0 in slot ${slot}, found ${past}`);
  }
  atMost(`pages in slot ${slot}`, pages.length, capacity.pagesPerSequence);
  checkPages("begin step", pages, past + rowCount, capacity);
}

/** Throws unless `pages` exist and hold `positions` positions. */
export function checkPages(
  action: string,
  pages: Uint32Array,
  positions: number,
  capacity: Capacity,
): void {
  const wanted = Math.ceil(positions / capacity.pageTokens);
  if (pages.length < wanted) {
    throw new Error(
      `${action}: wanted ${wanted} pages for ${positions} positions, found ${pages.length}`,
    );
  }
  for (const page of pages) {
    if (page >= capacity.pages) {
      throw new Error(`${action}: wanted pages below ${capacity.pages}, found ${page}`);
    }
  }
}

/** Throws unless `slot` exists. */
export function checkSlot(action: string, slot: number, capacity: Capacity): void {
  if (!Number.isInteger(slot) || slot < 0 || slot >= capacity.slots) {
    throw new Error(`${action}: wanted a slot below ${capacity.slots}, found ${slot}`);
  }
}
