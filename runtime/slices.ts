/** Long work on the thread that answers everybody, cut into slices of a few milliseconds. */
import { SLICE_MS } from "./limits.ts";

/** When the last one in line may go on. */
let lastTurn: Promise<void> = Promise.resolve();

/**
 * One request's share of the thread. All requests wait in one line: between two slices, whosever
 * they are, timers and sockets are looked after.
 */
export class Slices {
  readonly #signal: AbortSignal | undefined;
  /** When the slice began, in milliseconds of performance.now(). */
  #began = performance.now();

  /** `signal`: ends the work at the next turn, with the signal's reason. */
  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Between pieces of work of about a millisecond: waits for a turn once the slice is used up. */
  async giveWay(): Promise<void> {
    if (this.isUsedUp) await this.turn();
  }

  /** Whether it is time for a turn. */
  get isUsedUp(): boolean {
    return performance.now() - this.#began >= SLICE_MS;
  }

  /** Before a piece of several milliseconds: waits for a turn in any case. */
  async turn(): Promise<void> {
    lastTurn = lastTurn.then(look);
    await lastTurn;
    this.#signal?.throwIfAborted();
    this.#began = performance.now();
  }
}

/** Lets timers and sockets run. */
function look(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
