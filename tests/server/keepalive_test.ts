/** Silence on a stream is filled with comments, and nothing is lost or reordered by them. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { Lifetime } from "../../runtime/http/lifetime.ts";
import { streamResponse } from "../../runtime/http/stream.ts";
import { FakeEngine } from "./fake_engine.ts";

const COMMENT = ": keep-alive\n\n";
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function writesOf(source: AsyncGenerator<unknown>, keepAliveMs: number): Promise<string[]> {
  const life = new Lifetime(new FakeEngine(), new Request("http://localhost/"), null);
  const response = streamResponse(source, source, life, { keepAliveMs, slowReaderMs: 60_000 });
  const writes: string[] = [];
  for await (const bytes of response.body!) writes.push(new TextDecoder().decode(bytes));
  return writes;
}

Deno.test("keep-alive: a silent stream has comments until its next event", async () => {
  const writes = await writesOf(
    async function* () {
      await pause(110);
      yield 1;
      yield 2;
      await pause(110);
    }(),
    20,
  );
  const comments = writes.filter((text) => text === COMMENT).length;
  ok(comments >= 4 && comments <= 10, `${comments} comments in 220 ms of silence`);
  equal(writes[0], COMMENT);
  deepEqual(writes.filter((text) => text !== COMMENT), [
    "data: 1\n\ndata: 2\n\n",
    "data: [DONE]\n\n",
  ]);
});

Deno.test("keep-alive: a stream with events has no comments", async () => {
  const writes = await writesOf(
    async function* () {
      for (let count = 0; count < 20; count++) {
        await pause(5);
        yield count;
      }
    }(),
    2000,
  );
  equal(writes.includes(COMMENT), false);
  // The last value and the end go out together.
  equal(writes.length, 20);
});

Deno.test("keep-alive: comments stop when the client leaves", async () => {
  const life = new Lifetime(new FakeEngine(), new Request("http://localhost/"), null);
  const source = async function* () {
    await new Promise((resolve) => life.signal.onabort = resolve);
    yield 1;
  }();
  const times = { keepAliveMs: 10, slowReaderMs: 60_000 };
  const reader = streamResponse(source, source, life, times).body!.getReader();
  equal(new TextDecoder().decode((await reader.read()).value), COMMENT);
  await reader.cancel();
  equal((await reader.read()).done, true);
});
