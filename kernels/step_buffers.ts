/**
 * What a step's kernels know about its rows, uploaded once a step.
 *
 * All tables lie in one buffer at fixed offsets, so that bind groups stay cached and a step costs
 * one upload. Words are u32.
 */
import type { Gpu } from "./gpu/gpu.ts";
import { type BufferUse, read } from "./gpu/recorder.ts";
import type { Capacity, StepPlan, StepSequence } from "./types.ts";

/**
 * Rows of a chunk. A segment of more than one row is cut into chunks from its first row on, so a
 * sequence's results do not depend on its neighbours. With 16 rows all pairs of a KDA chunk are in
 * one diagonal tile: products of retentions need no exponentials of differences.
 */
export const CHUNK_ROWS = 16;

/** Offsets of bound regions are multiples of this (WebGPU's default limit). */
const REGION_BYTES = 256;
const ROW_WORDS = 4;
const CHUNK_WORDS = 4;
const PREFILL_WORDS = 4;

/** Order of the tables. */
const ROWS = 0;
const SINGLES = 1;
const CHUNKS = 2;
const PREFILLS = 3;
const PAGES = 4;

/** A sequence's rows, the position of the first, and the start of its pages in `pages`. */
export interface SequenceRows {
  readonly rowStart: number;
  readonly rowCount: number;
  readonly past: number;
  readonly pageStart: number;
}

interface Region {
  readonly start: number;
  readonly use: BufferUse;
}

/** The part of a step that a block computes. */
export interface StepTables {
  readonly rows: BufferUse;
  readonly chunks: BufferUse;
  readonly prefills: BufferUse;
  readonly pages: BufferUse;
  readonly rowCount: number;
  readonly chunkCount: number;
  readonly decodeCount: number;
  readonly prefillCount: number;
  readonly lastPosition: number;
  readonly sequences: readonly SequenceRows[];
}

export class StepBuffers implements StepTables {
  readonly #gpu: Gpu;
  readonly #capacity: Capacity;
  readonly #buffer: GPUBuffer;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #regions: readonly Region[];
  #rowCount = 0;
  #chunkCount = 0;
  #decodeCount = 0;
  #prefillCount = 0;
  #lastPosition = 0;
  #lastPrefillPosition = 0;
  #internalRows: Uint32Array = new Uint32Array(0);
  #sequences: readonly SequenceRows[] = [];

  private constructor(gpu: Gpu, capacity: Capacity) {
    const { rows, sequences, pagesPerSequence } = capacity;
    this.#gpu = gpu;
    this.#capacity = capacity;
    const counts = [
      ROW_WORDS * rows,
      ROW_WORDS * sequences,
      CHUNK_WORDS * (chunksMax(capacity) + sequences),
      PREFILL_WORDS * sequences,
      sequences * pagesPerSequence,
    ];
    const starts: number[] = [];
    let end = 0;
    for (const count of counts) {
      starts.push(end);
      end += Math.max(1, Math.ceil(4 * count / REGION_BYTES)) * REGION_BYTES / 4;
    }
    this.#words = new Uint32Array(end);
    this.#buffer = gpu.buffer("step", 4 * end);
    this.#regions = starts.map((start, index) => ({
      start,
      use: read(this.#buffer, 4 * start, 4 * ((starts[index + 1] ?? end) - start)),
    }));
  }

  /** Allocates the tables for the largest step. */
  static create(gpu: Gpu, capacity: Capacity): StepBuffers {
    return new StepBuffers(gpu, capacity);
  }

  /** [rowCount][4]: sequence of the step, position, slot, start of its pages in `pages`. */
  get rows(): BufferUse {
    return this.#use(ROWS);
  }
  /** [decodeCount][4]: the same of the rows of sequences with a single one. */
  get singles(): BufferUse {
    return this.#use(SINGLES);
  }
  /**
   * [chunkCount + decodeCount][4]: first row, rows, slot, and for the first chunk of a segment the
   * rows of the segment, else 0. Chunks of segments with several rows come first, those of a
   * sequence side by side and in order; then one chunk for each sequence with a single row.
   */
  get chunks(): BufferUse {
    return this.#use(CHUNKS);
  }
  /** [prefillCount][4]: slot, first chunk, chunks, 0 of each sequence with several rows. */
  get prefills(): BufferUse {
    return this.#use(PREFILLS);
  }
  /** Page numbers of the sequences, one after the other. */
  get pages(): BufferUse {
    return this.#use(PAGES);
  }

  get rowCount(): number {
    return this.#rowCount;
  }
  /** Chunks of sequences with several rows. */
  get chunkCount(): number {
    return this.#chunkCount;
  }
  /** Sequences with one row. */
  get decodeCount(): number {
    return this.#decodeCount;
  }
  /** Sequences with several rows. */
  get prefillCount(): number {
    return this.#prefillCount;
  }

  /** The step's sequences, in the order of their rows. */
  get sequences(): readonly SequenceRows[] {
    return this.#sequences;
  }

  /** Largest position of any row. */
  get lastPosition(): number {
    return this.#lastPosition;
  }

  /** Rows of sequences with several: the first ones. */
  get prefillRows(): number {
    return this.#rowCount - this.#decodeCount;
  }

  /** The step without its sequences of a single row. */
  get prefillPart(): StepTables {
    return {
      rows: this.rows,
      chunks: this.chunks,
      prefills: this.prefills,
      pages: this.pages,
      rowCount: this.prefillRows,
      chunkCount: this.#chunkCount,
      decodeCount: 0,
      prefillCount: this.#prefillCount,
      lastPosition: this.#lastPrefillPosition,
      sequences: this.#sequences.filter(({ rowCount }) => rowCount > 1),
    };
  }

  /**
   * Where each row of the plan is among the rows of the tables and of all buffers: sequences of
   * several rows come first.
   */
  get internalRows(): Uint32Array {
    return this.#internalRows;
  }

  /** Checks and uploads the tables of `plan`. Call it when no earlier step is still recorded. */
  upload(plan: StepPlan): void {
    checkPlan(plan, this.#capacity);
    const words = this.#words;
    const prefills = this.#regions[PREFILLS]!.start;
    const pages = this.#regions[PAGES]!.start;
    this.#rowCount = plan.tokens.length;
    const last = (sequences: readonly StepSequence[]) =>
      Math.max(0, ...sequences.map((s) => s.past + s.rowCount - 1));
    const ordered = this.#order(plan);
    const several = ordered.filter(({ rowCount }) => rowCount > 1);
    const single = ordered.filter(({ rowCount }) => rowCount === 1);
    this.#lastPosition = last(ordered);
    this.#lastPrefillPosition = last(several);
    let chunk = 0;
    several.forEach((sequence, index) => {
      const count = Math.ceil(sequence.rowCount / CHUNK_ROWS);
      words.set([sequence.slot, chunk, count, 0], prefills + PREFILL_WORDS * index);
      for (let i = 0; i < count; i++) this.#writeChunk(chunk++, sequence, i);
    });
    this.#chunkCount = chunk;
    for (const sequence of single) this.#writeChunk(chunk++, sequence, 0);
    this.#prefillCount = several.length;
    this.#decodeCount = single.length;
    let page = 0;
    this.#sequences = ordered.map((sequence, index) => {
      const { rowStart, rowCount, past } = sequence;
      const pageStart = page;
      this.#writeRows(sequence, index, pageStart);
      words.set(sequence.pages, pages + pageStart);
      page += sequence.pages.length;
      return { rowStart, rowCount, past, pageStart };
    });
    this.#gpu.write(this.#buffer, 0, words, 4 * (pages + page));
  }

  #use(region: number): BufferUse {
    return this.#regions[region]!.use;
  }

  /** The plan's sequences, those of several rows first, at the rows that they have here. */
  #order({ tokens, sequences }: StepPlan): StepSequence[] {
    const internal = new Uint32Array(tokens.length);
    let next = 0;
    const place = (sequence: StepSequence): StepSequence => {
      for (let i = 0; i < sequence.rowCount; i++) internal[sequence.rowStart + i] = next + i;
      const placed = { ...sequence, rowStart: next };
      next += sequence.rowCount;
      return placed;
    };
    const several = sequences.filter(({ rowCount }) => rowCount > 1).map(place);
    const ordered = [...several, ...sequences.filter(({ rowCount }) => rowCount === 1).map(place)];
    this.#internalRows = internal;
    return ordered;
  }

  #writeRows(sequence: StepSequence, index: number, page: number): void {
    const start = this.#regions[ROWS]!.start;
    for (let i = 0; i < sequence.rowCount; i++) {
      const row = sequence.rowStart + i;
      const entry = [index, sequence.past + i, sequence.slot, page];
      this.#words.set(entry, start + ROW_WORDS * row);
      if (sequence.rowCount === 1) {
        const single = row - this.prefillRows;
        this.#words.set(entry, this.#regions[SINGLES]!.start + ROW_WORDS * single);
      }
    }
  }

  #writeChunk(chunk: number, { rowStart, rowCount, slot }: StepSequence, index: number): void {
    const offset = index * CHUNK_ROWS;
    const count = Math.min(CHUNK_ROWS, rowCount - offset);
    this.#words.set(
      [rowStart + offset, count, slot, index === 0 ? rowCount : 0],
      this.#regions[CHUNKS]!.start + CHUNK_WORDS * chunk,
    );
  }
}

/** Most chunks of sequences with several rows in one step. */
export function chunksMax({ rows, sequences }: Pick<Capacity, "rows" | "sequences">): number {
  return Math.min(Math.floor(rows / 2), Math.floor(rows / CHUNK_ROWS) + sequences);
}

/** Throws where a plan would make a kernel read or write outside its buffers, or race. */
function checkPlan(plan: StepPlan, capacity: Capacity): void {
  const fail = (wanted: string, found: number | string) => {
    throw new Error(`begin a step: wanted ${wanted}, found ${found}`);
  };
  const rowCount = plan.tokens.length;
  if (rowCount > capacity.rows) fail(`at most ${capacity.rows} rows`, rowCount);
  if (plan.sequences.length > capacity.sequences) {
    fail(`at most ${capacity.sequences} sequences`, plan.sequences.length);
  }
  const slots = new Set<number>();
  let next = 0;
  for (const { slot, rowStart, rowCount: count, past, pages } of plan.sequences) {
    if (rowStart !== next || count < 1) fail(`a sequence from row ${next}`, `${rowStart}+${count}`);
    if (slot >= capacity.slots) fail(`slots below ${capacity.slots}`, slot);
    if (slots.has(slot)) fail("each slot once", `slot ${slot} twice`);
    if (pages.length > capacity.pagesPerSequence) {
      fail(`at most ${capacity.pagesPerSequence} pages a sequence`, pages.length);
    }
    if (pages.length * capacity.pageTokens < past + count) {
      fail(`pages for ${past + count} tokens`, pages.length);
    }
    for (const page of pages) {
      if (page >= capacity.pages) fail(`pages below ${capacity.pages}`, page);
    }
    slots.add(slot);
    next += count;
  }
  if (next !== rowCount) fail(`sequences over all ${rowCount} rows`, next);
}
