/**
 * Who runs when. Pure: no device, no clock, no randomness, so that it can be simulated.
 *
 * Every step takes one row of each decoding sequence and fills the rest of its rows with pieces of
 * prompts, shared evenly between owners and then between their prompts, so that a long prompt never
 * holds up other streams for more than a step. Slots go to the owner that has fewest, oldest
 * request first. Pages are taken as sequences grow; when they run out, the youngest sequence gives
 * all of its own back and later starts again from its tokens, through the same pieces and rows as
 * the first time, which gives the same bits.
 */
import { SHARED_STEP_ROWS } from "../limits.ts";
import type { StepSequence } from "../model/device.ts";
import { RequestError } from "../errors.ts";
import type { GenerateRequest } from "./engine.ts";
import { Pool } from "./pool.ts";

/** Stands for a token that the step under way chooses. */
export const UNKNOWN_TOKEN = -1;

/** One request's tokens and place. */
export interface Sequence {
  readonly id: number;
  readonly request: GenerateRequest;
  /** Prompt, then generated tokens; the last may be UNKNOWN_TOKEN. */
  readonly tokens: number[];
  /** Tokens whose state is in the slot and pages, or will be after the steps under way. */
  past: number;
  slot: number;
  readonly pages: number[];
  /** Order of first admission; kept over preemptions, so that the oldest always gets on. */
  rank: number;
  /** Its reader does not keep up: it keeps its slot and takes no rows. */
  paused: boolean;
  /** Ended or cancelled: what steps under way still compute of it is dropped. */
  over: boolean;
}

export interface SchedulerLimits {
  readonly slots: number;
  readonly pages: number;
  readonly pageTokens: number;
  /** Rows of a step. */
  readonly rows: number;
  /** Rows of a step that may have logits. */
  readonly logitRows: number;
  /** Prompts advance by multiples of this (see Device.pieceTokens). */
  readonly pieceTokens: number;
}

/** One sequence's part of a step. */
export interface StepPart {
  readonly sequence: Sequence;
  readonly rowStart: number;
  readonly rowCount: number;
  /** Its first row's position. */
  readonly past: number;
  /** Index into the step's logit rows of this part's first one. */
  readonly logitStart: number;
  /** Logit rows of this part: all rows (log-probabilities of the prompt), the last, or none. */
  readonly logitCount: number;
}

export interface ScheduledStep {
  readonly parts: readonly StepPart[];
  /** [rows]; UNKNOWN_TOKEN where the step before chooses. */
  readonly tokens: readonly number[];
  readonly sequences: readonly StepSequence[];
}

export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #slots: Pool;
  readonly #pages: Pool;
  /** In the order of arrival; preempted ones before all others. */
  readonly #waiting: Sequence[] = [];
  /** By rank. */
  readonly #running: Sequence[] = [];
  readonly #onRelease: (slot: number) => void;
  #lastRank = 0;
  #preemptions = 0;

  /** `onRelease` is told of every slot given back; its state must be zeroed before it is reused. */
  constructor(limits: SchedulerLimits, onRelease: (slot: number) => void) {
    const { slots, rows, logitRows, pieceTokens } = limits;
    const wanted = (text: string, found: number) => {
      throw new Error(`schedule: wanted ${text}, found ${found}`);
    };
    if (rows < slots + pieceTokens) wanted(`rows for ${slots} slots and a piece`, rows);
    if (logitRows < slots + pieceTokens) {
      wanted(`logit rows for ${slots} slots and a piece`, logitRows);
    }
    this.#limits = limits;
    this.#slots = new Pool("slot", slots);
    this.#pages = new Pool("page", limits.pages);
    this.#onRelease = onRelease;
  }

  get stats() {
    const sequences = [...this.#waiting, ...this.#running];
    return {
      running: this.#running.length,
      queued: this.#waiting.length,
      paused: sequences.filter(({ paused }) => paused).length,
      queuedTokens: sequences.reduce(
        (sum, { request, past }) => sum + Math.max(0, request.promptIds.length - past),
        0,
      ),
      freeSlots: this.#slots.freeCount,
      freePages: this.#pages.freeCount,
      pages: this.#limits.pages,
      preemptions: this.#preemptions,
    };
  }

  /** Whether anything waits or runs. */
  get idle(): boolean {
    return this.#waiting.length + this.#running.length === 0;
  }

  /** Queues a request. Throws RequestError when it may need more pages than there are. */
  submit(id: number, request: GenerateRequest): Sequence {
    const { pages, pageTokens } = this.#limits;
    const most = request.promptIds.length + request.maxTokens;
    if (this.#pagesFor(most) > pages) {
      throw new RequestError(
        `queue the request: wanted prompt and max_tokens of at most ${pages * pageTokens} tokens ` +
          `together, found ${most}`,
        "max_tokens",
        "context_length_exceeded",
      );
    }
    const sequence: Sequence = {
      id,
      request,
      tokens: Array.from(request.promptIds),
      past: 0,
      slot: -1,
      pages: [],
      rank: 0,
      paused: false,
      over: false,
    };
    this.#waiting.push(sequence);
    return sequence;
  }

  /** Ends a request, waiting or running, and gives its slot and pages back. */
  finish(sequence: Sequence): void {
    if (sequence.over) return;
    sequence.over = true;
    if (sequence.slot >= 0) return this.#stop(sequence);
    this.#waiting.splice(this.#waiting.indexOf(sequence), 1);
  }

  /** The next step, or null when nothing can run. Its rows count as past from now on. */
  next(): ScheduledStep | null {
    this.#admit();
    const parts: StepPart[] = [];
    const sequences: StepSequence[] = [];
    const tokens: number[] = [];
    let logitStart = 0;
    // Oldest first, so that whoever gives way has no rows in this step yet.
    for (const [sequence, rowCount] of this.#share()) {
      if (sequence.slot < 0) continue; // preempted for an older one
      if (!this.#growPages(sequence, sequence.past + rowCount)) continue;
      const rowStart = tokens.length;
      const { past, slot } = sequence;
      for (let at = past; at < past + rowCount; at++) tokens.push(sequence.tokens[at]!);
      const logitCount = wantedLogits(sequence, rowCount);
      sequences.push({ slot, rowStart, rowCount, past, pages: Uint32Array.from(sequence.pages) });
      parts.push({ sequence, rowStart, rowCount, past, logitStart, logitCount });
      logitStart += logitCount;
      sequence.past += rowCount;
    }
    return parts.length === 0 ? null : { parts, tokens, sequences };
  }

  #admit(): void {
    while (this.#slots.freeCount > 0) {
      const sequence = this.#nextWaiting();
      // Room for all its tokens, so that a newcomer does not preempt or get preempted at once.
      if (sequence === null || this.#pagesFor(sequence.tokens.length) > this.#sparePages()) return;
      this.#waiting.splice(this.#waiting.indexOf(sequence), 1);
      sequence.slot = this.#slots.take()!;
      sequence.rank ||= ++this.#lastRank;
      this.#running.push(sequence);
      this.#running.sort((a, b) => a.rank - b.rank);
    }
  }

  /** Free pages that the tokens of running sequences will not take. */
  #sparePages(): number {
    return this.#running.reduce(
      (spare, { tokens, pages }) =>
        spare - Math.max(0, this.#pagesFor(tokens.length) - pages.length),
      this.#pages.freeCount,
    );
  }

  /** Who gets the next slot: whoever gave way, else the oldest of the owner with fewest slots. */
  #nextWaiting(): Sequence | null {
    const first = this.#waiting[0];
    if (first === undefined || first.rank > 0) return first ?? null;
    const slots = new Map<string, number>();
    for (const { request } of this.#running) {
      slots.set(request.owner, (slots.get(request.owner) ?? 0) + 1);
    }
    let [best, fewest] = [first, Infinity];
    const seen = new Set<string>();
    for (const sequence of this.#waiting) {
      const { owner } = sequence.request;
      if (seen.has(owner)) continue;
      seen.add(owner);
      const count = slots.get(owner) ?? 0;
      if (count < fewest) [best, fewest] = [sequence, count];
    }
    return best;
  }

  /** Rows for each sequence that can use some, by rank. */
  #share(): [Sequence, number][] {
    const active = this.#running.filter(canUseRows);
    const prompts = active.filter((sequence) => this.#pieceEnd(sequence) > sequence.past);
    const shares = new Map<Sequence, number>();
    for (const sequence of active) if (!prompts.includes(sequence)) shares.set(sequence, 1);
    const { rows: rowsMax, slots, pieceTokens } = this.#limits;
    const rowsBeside = Math.max(SHARED_STEP_ROWS, slots + pieceTokens);
    let rows = (shares.size > 0 ? Math.min(rowsMax, rowsBeside) : rowsMax) - shares.size;
    // Every running sequence may need one logit row; what is left goes to prompt log-probabilities.
    let logitRows = this.#limits.logitRows - this.#running.length;
    const weights = fairWeights(prompts);
    let weightLeft = weights.reduce((sum, weight) => sum + weight, 0);
    for (const [index, sequence] of prompts.entries()) {
      const share = weights[index]! / weightLeft;
      weightLeft -= weights[index]!;
      // Less a hair, as the shares are rounded.
      let count = Math.ceil(rows * share - 1e-9);
      const hasLogits = sequence.request.promptLogprobs;
      if (hasLogits) count = Math.min(count, Math.floor(logitRows * share));
      count = this.#wholePieces(sequence, count, hasLogits ? Math.min(rows, logitRows) : rows);
      if (count === 0) continue;
      shares.set(sequence, count);
      rows -= count;
      if (hasLogits) logitRows -= count;
    }
    return active.flatMap((sequence) => {
      const count = shares.get(sequence);
      return count === undefined ? [] : [[sequence, count]];
    });
  }

  /** Where the part of the tokens that is computed in pieces ends. */
  #pieceEnd({ tokens, request }: Sequence): number {
    // Generated tokens of a sequence that gave way come again one by one, as they came first,
    // unless the size of a piece does not matter.
    return this.#limits.pieceTokens === 1 && tokens.at(-1) !== UNKNOWN_TOKEN
      ? Math.max(request.promptIds.length, tokens.length - 1)
      : request.promptIds.length;
  }

  /** `count` rounded to whole pieces: at least one, as long as `most` rows hold it. */
  #wholePieces(sequence: Sequence, count: number, most: number): number {
    const { pieceTokens } = this.#limits;
    const whole = this.#pieceEnd(sequence) - sequence.past;
    // One row by itself goes the way of decoding, so it goes alone wherever the steps end.
    const left = whole > 1 && whole % pieceTokens === 1 ? whole - 1 : whole;
    if (left <= Math.max(count, Math.min(pieceTokens, most))) return left;
    const pieces = Math.max(1, Math.floor(count / pieceTokens)) * pieceTokens;
    return pieces <= most ? pieces : 0;
  }

  /**
   * Takes pages up to `tokenCount` tokens, from the youngest if need be. False: `sequence` gave
   * way.
   */
  #growPages(sequence: Sequence, tokenCount: number): boolean {
    while (sequence.pages.length < this.#pagesFor(tokenCount)) {
      const page = this.#pages.take();
      if (page !== null) {
        sequence.pages.push(page);
        continue;
      }
      const youngest = this.#running.at(-1)!;
      this.#preempt(youngest);
      if (youngest === sequence) return false;
    }
    return true;
  }

  #preempt(sequence: Sequence): void {
    this.#stop(sequence);
    this.#preemptions++;
    sequence.past = 0;
    this.#waiting.unshift(sequence);
  }

  #stop(sequence: Sequence): void {
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#slots.give(sequence.slot);
    this.#onRelease(sequence.slot);
    sequence.slot = -1;
    for (const page of sequence.pages.splice(0)) this.#pages.give(page);
  }

  #pagesFor(tokenCount: number): number {
    return Math.ceil(tokenCount / this.#limits.pageTokens);
  }
}

function canUseRows({ request, tokens, past, paused }: Sequence): boolean {
  if (paused || past >= tokens.length) return false;
  const isLast = tokens.length - request.promptIds.length >= request.maxTokens;
  return !(isLast && tokens.at(-1) === UNKNOWN_TOKEN);
}

/** Each owner weighs the same, and so does each prompt of an owner. */
function fairWeights(prompts: readonly Sequence[]): number[] {
  const counts = new Map<string, number>();
  for (const { request } of prompts) {
    counts.set(request.owner, (counts.get(request.owner) ?? 0) + 1);
  }
  return prompts.map(({ request }) => 1 / counts.get(request.owner)!);
}

/** Logit rows that a part of `rowCount` rows needs, counted from its last row. */
function wantedLogits(sequence: Sequence, rowCount: number): number {
  const { request, tokens, past } = sequence;
  if (request.promptLogprobs && past < request.promptIds.length) return rowCount;
  return past + rowCount === tokens.length && request.maxTokens > 0 ? 1 : 0;
}
