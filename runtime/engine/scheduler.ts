/**
 * Who runs when. Pure: no device, no clock, no randomness.
 *
 * Every step takes one row of each decoding sequence and fills the rest of its rows with pieces of
 * prompts, shared evenly, so that a long prompt never holds up other streams for more than a step.
 * Pages are taken as sequences grow; when they run out, the youngest sequence gives all of its own
 * back and later starts again from its tokens, which gives the same result.
 */
import type { StepPlan, StepSequence } from "../model/device.ts";
import { OverloadedError } from "../errors.ts";
import type { GenerateRequest } from "./engine.ts";
import { Pool } from "./pool.ts";

/** One request's tokens and place. */
export interface Sequence {
  readonly id: number;
  readonly request: GenerateRequest;
  /** Prompt, then generated tokens. */
  readonly tokens: number[];
  /** Tokens whose state is in the slot and pages. */
  past: number;
  slot: number;
  readonly pages: number[];
}

export interface SchedulerLimits {
  readonly slots: number;
  readonly pages: number;
  readonly pageTokens: number;
  /** Rows of a step. */
  readonly rows: number;
  /** Rows of a step that may have logits. */
  readonly logitRows: number;
  /** Sequences that may wait. */
  readonly queue: number;
}

/** One sequence's part of a step. */
export interface StepPart {
  readonly sequence: Sequence;
  readonly rowStart: number;
  readonly rowCount: number;
  /** Index into the step's logit rows of this part's first one. */
  readonly logitStart: number;
  /** Logit rows of this part: all rows (log-probabilities of the prompt), the last, or none. */
  readonly logitCount: number;
}

export interface ScheduledStep {
  readonly plan: StepPlan;
  readonly parts: readonly StepPart[];
}

export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #slots: Pool;
  readonly #pages: Pool;
  readonly #waiting: Sequence[] = [];
  /** Oldest first. */
  readonly #running: Sequence[] = [];
  readonly #onRelease: (slot: number) => void;

  /** `onRelease` is told of every slot given back; its state must be zeroed before it is reused. */
  constructor(limits: SchedulerLimits, onRelease: (slot: number) => void) {
    if (limits.logitRows < limits.slots) {
      throw new Error(
        `schedule: wanted a logit row for each of ${limits.slots} slots, found ${limits.logitRows}`,
      );
    }
    this.#limits = limits;
    this.#slots = new Pool("slot", limits.slots);
    this.#pages = new Pool("page", limits.pages);
    this.#onRelease = onRelease;
  }

  get runningCount(): number {
    return this.#running.length;
  }

  get queuedCount(): number {
    return this.#waiting.length;
  }

  /** Queues a request. Throws OverloadedError when the queue is full. */
  submit(id: number, request: GenerateRequest): void {
    if (this.#waiting.length >= this.#limits.queue) {
      throw new OverloadedError(
        `queue the request: wanted fewer than ${this.#limits.queue} waiting, ` +
          `found ${this.#waiting.length}`,
      );
    }
    const tokens = Array.from(request.promptIds);
    this.#waiting.push({ id, request, tokens, past: 0, slot: -1, pages: [] });
  }

  /** Removes a request, waiting or running. False when there is none of that id. */
  cancel(id: number): boolean {
    const waiting = this.#waiting.findIndex((sequence) => sequence.id === id);
    if (waiting >= 0) {
      this.#waiting.splice(waiting, 1);
      return true;
    }
    const running = this.#running.find((sequence) => sequence.id === id);
    if (running !== undefined) this.finish(running);
    return running !== undefined;
  }

  /** Ends a running sequence and gives its slot and pages back. */
  finish(sequence: Sequence): void {
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#release(sequence);
  }

  /** The next step, or null when nothing waits or runs. */
  next(): ScheduledStep | null {
    this.#admit();
    const shares = this.#share();
    const parts: StepPart[] = [];
    const sequences: StepSequence[] = [];
    const tokens: number[] = [];
    const logitRows: number[] = [];
    // Oldest first, so that whoever gives way has no rows in this step yet.
    shares.sort(([a], [b]) => this.#running.indexOf(a) - this.#running.indexOf(b));
    for (const [sequence, rowCount] of shares) {
      if (!this.#running.includes(sequence)) continue; // preempted for an older one
      if (!this.#growPages(sequence, sequence.past + rowCount)) continue;
      const rowStart = tokens.length;
      const { past, slot } = sequence;
      tokens.push(...sequence.tokens.slice(past, past + rowCount));
      const wanted = wantedLogits(sequence, rowCount);
      const logitStart = logitRows.length;
      for (let row = rowCount - wanted; row < rowCount; row++) logitRows.push(rowStart + row);
      sequences.push({ slot, rowStart, rowCount, past, pages: Uint32Array.from(sequence.pages) });
      parts.push({ sequence, rowStart, rowCount, logitStart, logitCount: wanted });
    }
    if (parts.length === 0) return null;
    const plan = {
      tokens: Uint32Array.from(tokens),
      sequences,
      logitRows: Uint32Array.from(logitRows),
    };
    return { plan, parts };
  }

  /** Records that a step ran: its rows are part of their sequences' past. */
  complete(step: ScheduledStep): void {
    for (const part of step.parts) part.sequence.past += part.rowCount;
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#slots.freeCount > 0) {
      const sequence = this.#waiting[0]!;
      // Room for the whole prompt, so that a newcomer does not preempt or get preempted at once.
      if (this.#pagesFor(sequence.tokens.length) > this.#pages.freeCount) return;
      this.#waiting.shift();
      sequence.slot = this.#slots.take()!;
      this.#running.push(sequence);
    }
  }

  /** Rows for each running sequence: decoding ones first, then prompts, oldest first. */
  #share(): [Sequence, number][] {
    const remaining = (sequence: Sequence) => sequence.tokens.length - sequence.past;
    const decoding = this.#running.filter((sequence) => remaining(sequence) === 1);
    const prompts = this.#running.filter((sequence) => remaining(sequence) > 1);
    const shares: [Sequence, number][] = decoding.map((sequence) => [sequence, 1]);
    let rows = this.#limits.rows - decoding.length;
    // Every running sequence may need one logit row; what is left goes to prompt log-probabilities.
    let logitRows = this.#limits.logitRows - this.#running.length;
    for (const [index, sequence] of prompts.entries()) {
      let count = Math.min(remaining(sequence), Math.ceil(rows / (prompts.length - index)));
      if (sequence.request.promptLogprobs) {
        count = Math.min(count, 1 + Math.floor(logitRows / (prompts.length - index)));
        logitRows -= count - 1;
      }
      if (count > 0) shares.push([sequence, count]);
      rows -= count;
    }
    return shares;
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
    this.finish(sequence);
    sequence.past = 0;
    this.#waiting.unshift(sequence);
  }

  #release(sequence: Sequence): void {
    this.#slots.give(sequence.slot);
    this.#onRelease(sequence.slot);
    sequence.slot = -1;
    for (const page of sequence.pages.splice(0)) this.#pages.give(page);
  }

  #pagesFor(tokenCount: number): number {
    return Math.ceil(tokenCount / this.#limits.pageTokens);
  }
}

/** Logit rows that a part of `rowCount` rows needs, counted from its last row. */
function wantedLogits(sequence: Sequence, rowCount: number): number {
  const { request, tokens, past } = sequence;
  if (request.promptLogprobs && past < request.promptIds.length) return rowCount;
  return past + rowCount === tokens.length && request.maxTokens > 0 ? 1 : 0;
}
