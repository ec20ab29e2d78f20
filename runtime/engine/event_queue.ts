/** Events of one request on their way from the engine's thread to its reader. */
import { EngineError, type KedgeError } from "../errors.ts";
import { PENDING_EVENTS_MAX, SLOW_READER_MS } from "../limits.ts";
import type { GenerateEvent } from "./engine.ts";
import { EventStream } from "./event_stream.ts";

/** A paused request goes on once its reader has taken all but this many. */
const RESUME_EVENTS = PENDING_EVENTS_MAX / 4;

export interface EventQueueOptions {
  /** Told when the reader falls behind, and when it has caught up. */
  readonly onPause: (paused: boolean) => void;
  /** Told when the request is to end early: its reader left, or stayed behind for too long. */
  readonly onStop: () => void;
  /** Told once that nothing is taken any more; whether `done` was. */
  readonly onEnd: (isDone: boolean) => void;
  /** Its abort stops the request; the reader gets the reason in place of an event. */
  readonly signal?: AbortSignal | undefined;
  /** How long a reader may stay behind; SLOW_READER_MS but in tests. */
  readonly slowReaderMs?: number | undefined;
}

export class EventQueue extends EventStream {
  readonly #events: (GenerateEvent | KedgeError)[] = [];
  readonly #options: EventQueueOptions;
  readonly #abort = () => {
    this.#options.onStop();
    this.onReady();
  };
  #paused = false;
  #isCutOff = false;
  #isOver = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: EventQueueOptions) {
    super();
    this.#options = options;
    options.signal?.addEventListener("abort", this.#abort, { once: true });
  }

  /** Adds an event, of which wake() tells the reader. */
  push(event: GenerateEvent | KedgeError): void {
    if (this.#isCutOff) return;
    this.#events.push(event);
    if (this.#paused || this.#events.length < PENDING_EVENTS_MAX) return;
    this.#setPaused(true);
    const { slowReaderMs = SLOW_READER_MS } = this.#options;
    this.#timer = setTimeout(() => this.#cutOff(slowReaderMs), slowReaderMs);
  }

  /** Called when all events of a step are there: what is taken together is sent together. */
  wake(): void {
    if (this.#events.length > 0) this.onReady();
  }

  override take(): GenerateEvent | null {
    this.#options.signal?.throwIfAborted();
    const event = this.#events.shift();
    if (event === undefined) return null;
    if (this.#paused && this.#events.length <= RESUME_EVENTS) {
      clearTimeout(this.#timer);
      this.#setPaused(false);
    }
    if (event instanceof Error) {
      this.#end(false);
      throw event;
    }
    if (event.type === "done") this.#end(true);
    return event;
  }

  override close(): void {
    if (this.#isOver) return;
    if (!this.#options.signal?.aborted) this.#options.onStop();
    this.#end(false);
  }

  #end(isDone: boolean): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#abort);
    this.#options.onEnd(isDone);
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
    this.#options.onStop();
    this.wake();
  }
}
