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
import type { Source } from "./sources.ts";
import { encodeUtf8 } from "./utf8.ts";

/** What streams of a kind have in common. */
export interface StreamFormat {
  readonly contentType: string;
  readonly error: (error: unknown) => string;
  /** After the last event of a stream that ended well. */
  readonly end: string;
  /** Written after long silence; "" where nothing can be. */
  readonly keepAlive: string;
}

const SSE: StreamFormat = {
  contentType: "text/event-stream; charset=utf-8",
  error: (error) => serverSentEvent(errorBody(error)),
  end: "data: [DONE]\n\n",
  keepAlive: ": keep-alive\n\n",
};

export function serverSentEvent(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** A server-sent event that is named as its data's type. */
export function namedEvent(value: JsonObject): string {
  return `event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`;
}

/** Stands in an event for what differs from one to the next; no name or text of ours holds it. */
export const HOLE = "\0";

/** What is around the holes of an event: all that differs is written in between, as JSON. */
export function aroundHoles(event: string): readonly string[] {
  return event.split(JSON.stringify(HOLE));
}

export interface StreamOptions {
  readonly format?: StreamFormat;
  /** Milliseconds of silence before a comment keeps the connection alive. */
  readonly keepAliveMs?: number;
  /** Milliseconds that one write may wait for its reader. */
  readonly slowReaderMs?: number;
}

/**
 * Answers with the events, which are written already, then the format's end. A source that throws
 * ends the stream with an error event in place of that end, and so does a reader that
 * leaves a write waiting for too long. Events that are there at the same time are one write.
 *
 * `source`: what `events` is made of; it is ended with the stream, and `life` too.
 */
export function streamResponse(
  events: Source<string>,
  source: Source<unknown>,
  life: Lifetime,
  options: StreamOptions = {},
): Response {
  const { format = SSE, keepAliveMs = KEEP_ALIVE_MS, slowReaderMs = SLOW_READER_MS } = options;
  life.goOn();
  const writer = new EventWriter(events, source, life, format, keepAliveMs, slowReaderMs);
  return new Response(new ReadableStream(writer, { highWaterMark: 0 }), {
    headers: {
      "content-type": format.contentType,
      "cache-control": "no-cache",
      // Tells nginx and its like to pass events on as they come.
      "x-accel-buffering": "no",
    },
  });
}

/** Writes what is there when the connection wants it, or as soon as it is there after that. */
class EventWriter implements UnderlyingDefaultSource<Uint8Array> {
  readonly #events: Source<string>;
  readonly #source: Source<unknown>;
  readonly #life: Lifetime;
  readonly #format: StreamFormat;
  readonly #silence: Deadline;
  readonly #slowness: Deadline;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  /** Whether the connection waits for a write. */
  #isWanted = false;
  #isOpen = true;
  /** Whether the events had nothing when last asked and have not told of any since. */
  #isDry = false;

  constructor(
    events: Source<string>,
    source: Source<unknown>,
    life: Lifetime,
    format: StreamFormat,
    keepAliveMs: number,
    slowReaderMs: number,
  ) {
    this.#events = events;
    this.#source = source;
    this.#life = life;
    this.#format = format;
    this.#silence = new Deadline(keepAliveMs, () => this.#send(format.keepAlive));
    this.#slowness = new Deadline(slowReaderMs, () => this.#cutOff(slowReaderMs));
    life.wake = () => {
      this.#isDry = false;
      if (this.#isOpen && this.#isWanted) this.#write();
    };
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
  }

  pull(): void {
    if (!this.#isOpen) return;
    this.#slowness.lift();
    this.#isWanted = true;
    if (this.#isDry) this.#waitInSilence();
    else this.#write();
  }

  cancel(): void {
    this.#stop(new ClientLeftError());
  }

  #write(): void {
    let text = "";
    let isLast = false;
    try {
      while (!isLast && text.length < STREAM_WRITE_CHARACTERS) {
        const { done, value } = this.#events.next();
        if (value === null) {
          this.#isDry = true;
          break;
        }
        isLast = done === true;
        text += done === true ? this.#format.end : value;
      }
    } catch (error) {
      isLast = true;
      text += this.#format.error(error);
    }
    if (isLast) this.#end(text);
    else if (text !== "") this.#send(text);
    else this.#waitInSilence();
  }

  /** Begins with the first wait after a write: what is woken in vain was silent too. */
  #waitInSilence(): void {
    if (this.#format.keepAlive !== "" && !this.#silence.isSet) this.#silence.set();
  }

  #send(text: string): void {
    this.#isWanted = false;
    this.#silence.lift();
    this.#slowness.set();
    this.#controller.enqueue(encodeUtf8(text));
  }

  #end(text: string): void {
    this.#close();
    if (text !== "") this.#controller.enqueue(encodeUtf8(text));
    this.#controller.close();
  }

  #cutOff(milliseconds: number): void {
    const error = new EngineError(
      `stream the answer: wanted a reader that takes its events within ${milliseconds} ms, ` +
        "found one that does not",
      "slow_reader",
    );
    this.#stop(error);
    this.#end(this.#format.error(error));
  }

  #stop(reason: KedgeError): void {
    this.#close();
    this.#life.stop(reason);
    this.#source.return();
  }

  #close(): void {
    this.#isOpen = false;
    this.#silence.close();
    this.#slowness.close();
    this.#life.end();
  }
}
