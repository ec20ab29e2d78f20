/** Streams whose values come when a test says. */
import { Lifetime } from "../../runtime/http/lifetime.ts";
import { type Source, waitFor } from "../../runtime/http/sources.ts";
import { serverSentEvent, type StreamOptions, streamResponse } from "../../runtime/http/stream.ts";
import { FakeEngine } from "./fake_engine.ts";

export const pause = (milliseconds: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** A script's values as events; at a promise it waits. */
function* paced(script: Generator<unknown>, life: Lifetime): Source<string> {
  for (const value of script) {
    if (value instanceof Promise) yield* waitFor(value, life);
    else yield serverSentEvent(value);
  }
}

/** A stream over a script, and what it holds. */
export function openStream(script: Generator<unknown>, times: Partial<StreamOptions> = {}) {
  const engine = new FakeEngine();
  const life = new Lifetime(engine, new Request("http://localhost/"), null);
  const source = paced(script, life);
  const options = { keepAliveMs: 60_000, slowReaderMs: 60_000, ...times };
  return { engine, life, response: streamResponse(source, source, life, options) };
}
