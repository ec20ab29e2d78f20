/** Every generating request takes its place in the queue before any work, and gives it back. */
import { deepEqual, equal, ok } from "node:assert/strict";
import type { EngineState } from "../../runtime/engine/engine.ts";
import { EngineError } from "../../runtime/errors.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, FakeEngine, post, type Script } from "./fake_engine.ts";

const messages = [{ role: "user", content: "x" }];
const CHAT = "/v1/chat/completions", COMPLETIONS = "/v1/completions";
const BASE = { [CHAT]: { messages }, [COMPLETIONS]: { prompt: "x" } };
const PATHS = [CHAT, COMPLETIONS] as const;

/** A body that tells whether anybody has begun to read it. */
function watchedBody() {
  const watched = { isRead: false, stream: new ReadableStream<Uint8Array>() };
  watched.stream = new ReadableStream({
    pull(controller) {
      watched.isRead = true;
      controller.close();
    },
  }, { highWaterMark: 0 });
  return watched;
}

Deno.test("places: a full or unready engine is said before the body is read", async () => {
  const cases: [places: number, state: EngineState, retry: string][] = [
    [0, "ready", "7"],
    [9, "recovering", "3"],
    [9, "draining", "3"],
    [9, "failed", "3"],
  ];
  for (const path of PATHS) {
    for (const [places, state, retry] of cases) {
      const engine = new FakeEngine();
      engine.placesMax = places;
      engine.state = state;
      const { isRead, stream: body } = watchedBody();
      const init = { method: "POST", body, duplex: "half" } as RequestInit;
      const response = await appOver(engine).request(path, init);
      equal(response.status, 503);
      equal(response.headers.get("retry-after"), retry);
      equal((await response.json()).error.code, "server_overloaded");
      equal(isRead, false);
    }
  }
});

Deno.test("places: the first estimate is the body's length, the second the prompt's", async () => {
  const engine = new FakeEngine({}, 100_000);
  const app = appOver(engine);
  const ask = async (path: string, fields: object, declared?: number) => {
    engine.reserved.length = 0;
    const body = JSON.stringify(fields);
    const headers = { "content-length": String(declared ?? body.length) };
    const response = await app.request(path, { method: "POST", body, headers });
    equal(response.status, declared === undefined ? 200 : 413);
    return { tokens: engine.reserved.map(({ promptTokens }) => promptTokens), length: body.length };
  };
  const text = "word ".repeat(4000);
  const chat = await ask(CHAT, { messages: [{ role: "user", content: text }], user: text });
  equal(chat.tokens.length, 2);
  equal(chat.tokens[0], Math.ceil(chat.length / 4));
  ok(Math.abs(chat.tokens[1]! - text.length / 4) < 40, `${chat.tokens[1]}`);
  const several = await ask(COMPLETIONS, { prompt: [text, "abcde", "" + "x"] });
  deepEqual(several.tokens.slice(1), [text.length / 4, 2, 1]);
  deepEqual((await ask(COMPLETIONS, { prompt: [[1, 2, 3], [4]] })).tokens.slice(1), [3, 1]);
  // What can't be true is not believed.
  // What will not be let in takes no place.
  deepEqual((await ask(CHAT, { messages }, 2 ** 60)).tokens, []);
  equal(engine.places, 0);
});

Deno.test("places: each prompt of a request has one, all or none", async () => {
  const engine = new FakeEngine({ tokenMs: 5 });
  const app = appOver(engine);
  const answer = post(app, COMPLETIONS, { prompt: ["a", "b", "c"] });
  while (engine.running === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  equal(engine.places, 3);
  equal((await answer).status, 200);
  equal(engine.places, 0);
  engine.placesMax = 2;
  equal((await post(app, COMPLETIONS, { prompt: ["a", "b", "c"] })).status, 503);
  equal(engine.places, 0);
  equal((await post(app, COMPLETIONS, { prompt: ["a", "b"] })).status, 200);
});

const ENDS: readonly [name: string, script: Script, body: unknown, statuses: number[]][] = [
  ["an answer", {}, {}, [200]],
  ["a failure at the start", { error: { at: -1, value: new EngineError("x: wanted y") } }, {}, [
    500,
  ]],
  ["a failure on the way", { error: { at: 2, value: new EngineError("x: wanted y") } }, {}, [
    200,
    500,
  ]],
  ["no JSON", {}, "{", [400]],
  ["a wrong field", {}, { temperature: "x" }, [400]],
  ["another model", {}, { model: "x" }, [404]],
  ["a prompt over the context", {}, {
    messages: [{ role: "user", content: "x ".repeat(9000) }],
    prompt: "x ".repeat(9000),
  }, [400]],
];

Deno.test("places: all are given back, however a request ends", async () => {
  for (const path of PATHS) {
    for (const [name, script, fields, statuses] of ENDS) {
      for (const stream of [false, true]) {
        const engine = new FakeEngine(script);
        const body = typeof fields === "string"
          ? fields
          : { ...BASE[path], ...fields as object, stream };
        const response = await post(appOver(engine), path, body);
        ok(statuses.includes(response.status), `${name}: ${response.status}`);
        await response.text();
        deepEqual([engine.places, engine.running], [0, 0], name);
        ok(engine.reserved.length > 0);
      }
    }
    const engine = new FakeEngine({ output: "word ".repeat(50) });
    const left = await post(appOver(engine), path, { ...BASE[path], stream: true });
    equal(engine.places, 1);
    await left.body!.cancel();
    deepEqual([engine.places, engine.running], [0, 0]);
  }
});

Deno.test("places: an encoding that fails gives its place back and tells nothing", async () => {
  const { startEncoding, encode } = tinyTokenizer;
  const fail = () => {
    throw new Error("canary");
  };
  Object.assign(tinyTokenizer, { startEncoding: fail, encode: fail });
  try {
    for (const path of PATHS) {
      const engine = new FakeEngine();
      const response = await post(appOver(engine), path, BASE[path]);
      equal(response.status, 500);
      equal((await response.text()).includes("canary"), false);
      equal(engine.places, 0);
    }
  } finally {
    Object.assign(tinyTokenizer, { startEncoding, encode });
  }
});

Deno.test("places: a client that leaves during the encoding starts no generation", async () => {
  const engine = new FakeEngine({}, 2_000_000);
  const abort = new AbortController();
  const body = JSON.stringify({ messages: [{ role: "user", content: "word ".repeat(400_000) }] });
  const request = new Request(`http://localhost${CHAT}`, {
    method: "POST",
    body,
    signal: abort.signal,
  });
  const answer = Promise.resolve(appOver(engine).fetch(request));
  while (engine.reserved.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  abort.abort();
  equal((await answer).status, 499);
  deepEqual([engine.places, engine.requests.length], [0, 0]);
});
