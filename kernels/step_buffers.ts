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
const CHUNKS = 1;
const PREFILLS = 2;
const PAGES = 3;

interface Region {
  readonly start: number;
  readonly use: BufferUse;
}

export class StepBuffers {
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

  private constructor(gpu: Gpu, capacity: Capacity) {
    const { rows, sequences, pagesPerSequence } = capacity;
    this.#gpu = gpu;
    this.#capacity = capacity;
    const counts = [
      ROW_WORDS * rows,
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

  /** Largest position of any row. */
  get lastPosition(): number {
    return this.#lastPosition;
  }

  /** Checks and uploads the tables of `plan`. Call it when no earlier step is still recorded. */
  upload(plan: StepPlan): void {
    checkPlan(plan, this.#capacity);
    const words = this.#words;
    const prefills = this.#regions[PREFILLS]!.start;
    const pages = this.#regions[PAGES]!.start;
    this.#rowCount = plan.tokens.length;
    this.#lastPosition = Math.max(0, ...plan.sequences.map((s) => s.past + s.rowCount - 1));
    const several = plan.sequences.filter(({ rowCount }) => rowCount > 1);
    const single = plan.sequences.filter(({ rowCount }) => rowCount === 1);
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
    plan.sequences.forEach((sequence, index) => {
      this.#writeRows(sequence, index, page);
      words.set(sequence.pages, pages + page);
      page += sequence.pages.length;
    });
    this.#gpu.write(this.#buffer, 0, words, 4 * (pages + page));
  }

  #use(region: number): BufferUse {
    return this.#regions[region]!.use;
  }

  #writeRows(sequence: StepSequence, index: number, page: number): void {
    const start = this.#regions[ROWS]!.start;
    for (let i = 0; i < sequence.rowCount; i++) {
      const row = sequence.rowStart + i;
      const position = sequence.past + i;
      this.#words.set([index, position, sequence.slot, page], start + ROW_WORDS * row);
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
