/**
 * Events over a pull stream, as server-sent events unless told otherwise: the source is advanced
 * only when the connection wants more bytes, so a slow reader holds back its own generation and
 * nothing piles up here but one write.
 */
import { EngineError, type KedgeError } from "../errors.ts";
import { KEEP_ALIVE_MS, SLOW_READER_MS, STREAM_WRITE_CHARACTERS } from "../limits.ts";
import type { JsonObject } from "./body.ts";
import { Deadline } from "./deadline.ts";
import { errorBody } from "./errors.ts";
import { ClientLeftError, type Lifetime } from "./lifetime.ts";

/** How events are written. */
export interface StreamFormat {
  readonly contentType: string;
  readonly event: (value: unknown) => string;
  readonly error: (error: unknown) => string;
  /** After the last event of a stream that ended well. */
  readonly end: string;
  /** Written after long silence; "" where nothing can be. */
  readonly keepAlive: string;
}

const SSE: StreamFormat = {
  contentType: "text/event-stream; charset=utf-8",
  event: (value) => `data: ${JSON.stringify(value)}\n\n`,
  error: (error) => `data: ${JSON.stringify(errorBody(error))}\n\n`,
  end: "data: [DONE]\n\n",
  keepAlive: ": keep-alive\n\n",
};

/** A server-sent event that is named as its data's type. */
export function namedEvent(value: JsonObject): string {
  return `event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`;
}

export interface StreamOptions {
  readonly format?: StreamFormat;
  /** Milliseconds of silence before a comment keeps the connection alive. */
  readonly keepAliveMs?: number;
  /** Milliseconds that one write may wait for its reader. */
  readonly slowReaderMs?: number;
}

/**
 * Answers with one event for each value of `events`, then the format's end. A source that throws
 * ends the stream with an error event in place of that end, and so does a reader that
 * leaves a write waiting for too long. Values that are there at the same time are one write.
 *
 * `source`: what `events` is made of; it is ended with the stream, and `life` too.
 */
export function streamResponse(
  events: AsyncGenerator<unknown>,
  source: AsyncGenerator<unknown>,
  life: Lifetime,
  options: StreamOptions = {},
): Response {
  const { format = SSE, keepAliveMs = KEEP_ALIVE_MS, slowReaderMs = SLOW_READER_MS } = options;
  life.goOn();
  const encoder = new TextEncoder();
  const reader = new EventReader(events, format, keepAliveMs);
  let isOpen = true;
  let slowness: Deadline | null = null;
  const close = () => {
    isOpen = false;
    slowness?.close();
    reader.close();
    life.end();
  };
  const stop = (reason: KedgeError) => {
    close();
    life.stop(reason);
    return source.return(undefined);
  };
  const cutOff = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    const error = new EngineError(
      `stream the answer: wanted a reader that takes its events within ${slowReaderMs} ms, ` +
        "found one that does not",
      "slow_reader",
    );
    controller.enqueue(encoder.encode(format.error(error)));
    controller.close();
    void stop(error);
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      slowness?.lift();
      const { text, isLast } = await reader.read();
      // The client may have left during the wait, and a cancelled stream takes nothing more.
      if (!isOpen) return;
      controller.enqueue(encoder.encode(text));
      if (isLast) {
        close();
        controller.close();
      } else {
        slowness ??= new Deadline(slowReaderMs, () => cutOff(controller));
        slowness.set();
      }
    },
    async cancel() {
      await stop(new ClientLeftError());
    },
  }, { highWaterMark: 0 });
  return new Response(body, {
    headers: {
      "content-type": format.contentType,
      "cache-control": "no-cache",
      // Tells nginx and its like to pass events on as they come.
      "x-accel-buffering": "no",
    },
  });
}

/** Text for one write. */
interface Written {
  readonly text: string;
  /** Whether nothing follows. */
  readonly isLast: boolean;
}

/** The text of what is ready, or of a comment when nothing is for long. */
class EventReader {
  readonly #events: AsyncGenerator<unknown>;
  readonly #format: StreamFormat;
  readonly #silence: Deadline;
  /** Whether a value was asked for and not read. */
  #isAsked = false;
  /** The value that was asked for, once it is there. */
  #next: Written | null = null;
  #wake: () => void = () => {};

  constructor(events: AsyncGenerator<unknown>, format: StreamFormat, keepAliveMs: number) {
    this.#events = events;
    this.#format = format;
    this.#silence = new Deadline(keepAliveMs, () => this.#wake());
  }

  async read(): Promise<Written> {
    const { keepAlive } = this.#format;
    this.#ask();
    if (this.#next === null) {
      if (keepAlive !== "") this.#silence.set();
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#silence.lift();
    }
    let written = this.#take();
    if (written === null) return { text: keepAlive, isLast: false };
    let text = written.text;
    while (!written.isLast && text.length < STREAM_WRITE_CHARACTERS) {
      const more = await this.#ready();
      if (more === null) break;
      text += more.text;
      written = more;
    }
    return { text, isLast: written.isLast };
  }

  /** Ends the wait for a comment. */
  close(): void {
    this.#silence.close();
  }

  /** The next value if it is there already: what a source has in hand comes within a few turns. */
  async #ready(): Promise<Written | null> {
    this.#ask();
    for (let turn = 0; turn < READY_TURNS && this.#next === null; turn++) await null;
    return this.#take();
  }

  #take(): Written | null {
    const next = this.#next;
    if (next !== null) this.#isAsked = false;
    this.#next = null;
    return next;
  }

  #ask(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    this.#events.next().then(
      ({ done, value }) => {
        this.#arrive(
          done === true
            ? { text: this.#format.end, isLast: true }
            : { text: this.#format.event(value), isLast: false },
        );
      },
    ).catch((error) => this.#arrive({ text: this.#format.error(error), isLast: true }));
  }

  #arrive(written: Written): void {
    this.#next = written;
    this.#wake();
  }
}

/** Promises that a value passes on its way through the generators from the engine's queue. */
const READY_TURNS = 24;

/**
 * Starts the source: waits for its first value, but at most `milliseconds`. A source that refuses
 * in that time throws here, while the status of the answer is still open.
 */
export async function startSource<T>(
  source: AsyncGenerator<T>,
  milliseconds: number,
): Promise<AsyncGenerator<T>> {
  const first = source.next();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  try {
    await Promise.race([first, wait]);
  } finally {
    clearTimeout(timer);
  }
  // Whoever reads the source gets the error; until then it must not count as unhandled.
  first.catch(() => {});
  return resume(source, first);
}

/** The source from `first` on. No generator: it would cost each token several turns. */
function resume<T>(
  source: AsyncGenerator<T>,
  first: Promise<IteratorResult<T>>,
): AsyncGenerator<T> {
  let asked: Promise<IteratorResult<T>> | null = first;
  return {
    next() {
      const next = asked ?? source.next();
      asked = null;
      return next;
    },
    return: (value) => source.return(value),
    throw: (error) => source.throw(error),
    [Symbol.asyncIterator]() {
      return this;
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
