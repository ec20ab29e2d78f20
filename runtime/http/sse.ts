/**
 * Server-sent events over a pull stream: the source is advanced only when the connection wants more
 * bytes, so a slow reader holds back its own generation and nothing piles up here.
 */
import { errorBody } from "./errors.ts";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // Tells nginx and its like to pass events on as they come.
  "x-accel-buffering": "no",
};

/**
 * Answers with one `data:` event for each value of `events` as JSON, then `data: [DONE]`. A source
 * that throws ends the stream with an error event in place of `[DONE]`. `leave` is called once when
 * the client goes away before the end; it must make the source end soon.
 */
export function sseResponse(
  events: AsyncGenerator<unknown>,
  leave: () => Promise<unknown>,
): Response {
  const encoder = new TextEncoder();
  let open = true;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      let text: string;
      let last = false;
      try {
        const next = await events.next();
        last = next.done === true;
        text = last ? "[DONE]" : JSON.stringify(next.value);
      } catch (error) {
        last = true;
        text = JSON.stringify(errorBody(error));
      }
      // The client may have left during the wait, and a cancelled stream takes nothing more.
      if (!open) return;
      controller.enqueue(encoder.encode(`data: ${text}\n\n`));
      if (last) {
        open = false;
        controller.close();
      }
    },
    async cancel() {
      open = false;
      await leave();
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: HEADERS });
}

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

async function* resume<T>(
  source: AsyncGenerator<T>,
  first: Promise<IteratorResult<T>>,
): AsyncGenerator<T> {
  try {
    for (let next = await first; !next.done; next = await source.next()) yield next.value;
  } finally {
    await source.return(undefined);
  }
}
