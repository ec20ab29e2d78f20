/** The events of one request, to be taken as they come. */
import type { GenerateEvent } from "./engine.ts";

export abstract class EventStream implements AsyncIterable<GenerateEvent> {
  /** Called once there may be something to take, after take() returned null. */
  onReady: () => void = () => {};

  /**
   * The next event, in order; null when none is there yet. Nothing follows `done`. Throws the
   * KedgeError that ended the request, and after an abort the signal's reason.
   */
  abstract take(): GenerateEvent | null;

  /** Nothing is taken any more: ends the request unless it is over. May be called again. */
  abstract close(): void;

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerateEvent> {
    try {
      while (true) {
        const event = this.take();
        if (event === null) {
          await new Promise<void>((resolve) => this.onReady = resolve);
          continue;
        }
        yield event;
        if (event.type === "done") return;
      }
    } finally {
      this.close();
    }
  }
}
