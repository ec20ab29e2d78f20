/** Events of one request on their way to its reader. */
import { EngineError, type KedgeError } from "../errors.ts";
import { PENDING_EVENTS_MAX, SLOW_READER_MS } from "../limits.ts";
import type { GenerateEvent } from "./engine.ts";

/** A paused request goes on once its reader has taken all but this many. */
const RESUME_EVENTS = PENDING_EVENTS_MAX / 4;

export interface EventQueueOptions {
  /** Told when the reader falls behind, and when it has caught up. */
  readonly onPause: (paused: boolean) => void;
  /** Told when the reader stayed behind for too long: its request is to end. */
  readonly onCutOff: () => void;
  /** How long a reader may stay behind; SLOW_READER_MS but in tests. */
  readonly slowReaderMs?: number | undefined;
}

export class EventQueue {
  readonly #events: (GenerateEvent | KedgeError)[] = [];
  readonly #options: EventQueueOptions;
  #wake: (() => void) | null = null;
  #paused = false;
  #isCutOff = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: EventQueueOptions) {
    this.#options = options;
  }

  push(event: GenerateEvent | KedgeError): void {
    if (this.#isCutOff) return;
    this.#events.push(event);
    this.#wake?.();
    if (this.#paused || this.#events.length < PENDING_EVENTS_MAX) return;
    this.#setPaused(true);
    const { slowReaderMs = SLOW_READER_MS } = this.#options;
    this.#timer = setTimeout(() => this.#cutOff(slowReaderMs), slowReaderMs);
  }

  /** The next event, in order; null after an abort. Throws the error that ended the request. */
  async next(signal: AbortSignal | undefined): Promise<GenerateEvent | null> {
    while (this.#events.length === 0) {
      if (signal?.aborted) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (signal?.aborted) return null;
    const event = this.#events.shift()!;
    if (this.#paused && this.#events.length <= RESUME_EVENTS) {
      clearTimeout(this.#timer);
      this.#setPaused(false);
    }
    if (event instanceof Error) throw event;
    return event;
  }

  wake(): void {
    this.#wake?.();
  }

  /** Nothing is read any more. */
  close(): void {
    clearTimeout(this.#timer);
  }

  #setPaused(paused: boolean): void {
    this.#paused = paused;
    this.#options.onPause(paused);
  }

  /** What waits is dropped: a reader this late gets the reason next. */
  #cutOff(milliseconds: number): void {
    this.#events.length = 0;
    this.push(
      new EngineError(
        `stream the answer: wanted a reader that takes events within ${milliseconds} ms, ` +
          "found one that does not",
        "slow_reader",
      ),
    );
    this.#isCutOff = true;
    this.#options.onCutOff();
  }
}
