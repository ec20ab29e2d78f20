/** Silence on a stream is filled with comments, and nothing is lost or reordered by them. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { openStream, pause } from "./paced.ts";

const COMMENT = ": keep-alive\n\n";

async function writesOf(script: Generator<unknown>, keepAliveMs: number): Promise<string[]> {
  const { response } = openStream(script, { keepAliveMs });
  const writes: string[] = [];
  for await (const bytes of response.body!) writes.push(new TextDecoder().decode(bytes));
  return writes;
}

Deno.test("keep-alive: a silent stream has comments until its next event", async () => {
  const writes = await writesOf(
    function* () {
      yield pause(110);
      yield 1;
      yield 2;
      yield pause(110);
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
    function* () {
      for (let count = 0; count < 20; count++) {
        yield pause(5);
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
  const stream = openStream(
    function* () {
      yield new Promise((resolve) => stream.life.signal.onabort = resolve);
      yield 1;
    }(),
    { keepAliveMs: 10 },
  );
  const reader = stream.response.body!.getReader();
  equal(new TextDecoder().decode((await reader.read()).value), COMMENT);
  await reader.cancel();
  equal((await reader.read()).done, true);
});

Deno.test("keep-alive: a source that is woken in vain is silent", async () => {
  const writes = await writesOf(
    function* () {
      for (let count = 0; count < 22; count++) yield pause(5);
      yield 1;
    }(),
    20,
  );
  ok(writes.filter((text) => text === COMMENT).length >= 2, `${writes}`);
});
