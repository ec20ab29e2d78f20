/** The stream writer by itself: what goes out together, what is held, and how streams end. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { EventQueue } from "../../runtime/engine/event_queue.ts";
import { EngineError } from "../../runtime/errors.ts";
import type { StreamOptions } from "../../runtime/http/stream.ts";
import { STREAM_WRITE_CHARACTERS } from "../../runtime/limits.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";
import { openStream, pause } from "./paced.ts";

function open(script: Generator<unknown>, times: Partial<StreamOptions> = {}) {
  const { response, ...stream } = openStream(script, times);
  return { ...stream, reader: response.body!.getReader() };
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<string | null> {
  const { done, value } = await reader.read();
  return done ? null : new TextDecoder().decode(value);
}

Deno.test("stream: values that are there together are one write, later ones another", async () => {
  const { reader, engine } = open(function* () {
    yield 1;
    yield 2;
    yield pause(5);
    yield 3;
    yield 4;
  }());
  equal(await read(reader), "data: 1\n\ndata: 2\n\n");
  equal(await read(reader), "data: 3\n\ndata: 4\n\ndata: [DONE]\n\n");
  equal(await read(reader), null);
  equal(engine.places, 0);
});

Deno.test("stream: tokens that are ready together are one write, through both routes", async () => {
  const output = "word ".repeat(20);
  const bodies = {
    "/v1/chat/completions": { messages: [{ role: "user", content: "x" }], stream: true },
    "/v1/completions": { prompt: ["x", "y"], max_tokens: 50, stream: true },
  };
  for (const [path, body] of Object.entries(bodies)) {
    const response = await post(appOver(new FakeEngine({ output })), path, body);
    const writes: string[] = [];
    for await (const bytes of response.body!) writes.push(new TextDecoder().decode(bytes));
    const events = writes.join("").split("\n\n").length - 1;
    ok(writes.length <= 1 + events / 20, `${path}: ${events} events in ${writes.length} writes`);
    match(writes.at(-1)!, /data: \[DONE\]\n\n$/);
  }
});

const WORD = tinyTokenizer.encode("word")[0]!;

/** Gives the tokens of each step to all queues at once, as the Worker's messages do. */
class SteppingEngine extends FakeEngine {
  readonly tokensPerStep = 5;
  readonly steps = 6;
  readonly #queues = new Map<EventQueue, number>();
  #timer: ReturnType<typeof setInterval> | undefined;

  override generate(_request: GenerateRequest, signal?: AbortSignal): EventQueue {
    const queue: EventQueue = new EventQueue({
      signal,
      onPause() {},
      onStop: () => this.aborted++,
      onEnd: () => {
        this.#queues.delete(queue);
        if (this.#queues.size === 0) clearInterval(this.#timer);
      },
    });
    if (this.#queues.size === 0) this.#timer = setInterval(() => this.#step(), 15);
    this.#queues.set(queue, 0);
    return queue;
  }

  #step(): void {
    const queues = [...this.#queues];
    for (const [queue, steps] of queues) {
      for (let at = 0; at < this.tokensPerStep; at++) {
        queue.push({ type: "token", id: WORD, logprob: null });
      }
      this.#queues.set(queue, steps + 1);
      if (steps + 1 < this.steps) continue;
      const timings = { queuedMs: 0, prefillMs: 0, decodeMs: 0 };
      queue.push({ type: "done", reason: "length", timings });
    }
    for (const [queue] of queues) queue.wake();
  }
}

Deno.test("stream: what a connection gets of one step is one write, in every dialect", async () => {
  const messages = [{ role: "user", content: "x" }];
  const bodies = {
    "/v1/chat/completions": { messages, stream: true },
    "/v1/completions": { prompt: "x", stream: true },
    "/v1/responses": { input: "x", stream: true },
    "/v1/messages": { messages, max_tokens: 99, stream: true },
    "/api/chat": { messages },
  };
  for (const [path, body] of Object.entries(bodies)) {
    const engine = new SteppingEngine();
    const response = await post(appOver(engine), path, body);
    const writes: string[] = [];
    for await (const bytes of response.body!) writes.push(new TextDecoder().decode(bytes));
    // What comes before the first token may be a write of its own.
    const tokens = writes.map((text) => text.split("word").length - 1).filter((count) => count > 0);
    const own = path === "/v1/responses" ? tokens.slice(0, -1) : tokens;
    deepEqual(own, new Array(own.length).fill(engine.tokensPerStep), path);
    ok(writes.length <= engine.steps + 2, `${path}: ${writes.length} writes`);
  }
});

Deno.test("stream: the choices of one answer share the write of a step", async () => {
  const messages = [{ role: "user", content: "x" }];
  const bodies = {
    "/v1/chat/completions": { messages, n: 3, stream: true },
    "/v1/completions": { prompt: ["x", "y", "z"], stream: true },
  };
  for (const [path, body] of Object.entries(bodies)) {
    const engine = new SteppingEngine();
    const response = await post(appOver(engine), path, body);
    const writes: string[] = [];
    for await (const bytes of response.body!) writes.push(new TextDecoder().decode(bytes));
    const tokens = writes.map((text) => text.split("word").length - 1).filter((count) => count > 0);
    deepEqual(tokens, new Array(engine.steps).fill(3 * engine.tokensPerStep), path);
    match(writes.at(-1)!, /word.*data: \[DONE\]\n\n$/s, "the end goes out with the last token");
  }
});

Deno.test("stream: a client that leaves between two steps ends all its choices", async () => {
  const engine = new SteppingEngine();
  const body = { prompt: ["x", "y", "z"], stream: true };
  const response = await post(appOver(engine), "/v1/completions", body);
  const reader = response.body!.getReader();
  while (!(await read(reader))!.includes("word"));
  await reader.cancel();
  deepEqual([engine.aborted, engine.places], [3, 0]);
});

Deno.test("stream: reads that wait together get one write each, and the end once", async () => {
  const { reader } = open(function* () {
    yield 1;
    yield pause(5);
    yield 2;
  }());
  const reads = [read(reader), read(reader), read(reader), read(reader)];
  deepEqual(await Promise.all(reads), [
    "data: 1\n\n",
    "data: 2\n\ndata: [DONE]\n\n",
    null,
    null,
  ]);
});

Deno.test("stream: writes that wait at once keep their own bytes", async () => {
  const texts = ["plain", "für 漢字 🦜", "x".repeat(30_000), "\u0000\ud800"];
  const streams = Array.from({ length: 200 }, (_, index) => {
    const text = `${texts[index % texts.length]}${index}`;
    const { reader } = open(function* () {
      yield text;
    }());
    return { text, reader };
  });
  // All are read before the first is looked at.
  const written = await Promise.all(streams.map(({ reader }) => reader.read()));
  written.forEach(({ value }, index) => {
    const data = new TextDecoder().decode(value).split("\n\n")[0]!;
    equal(JSON.parse(data.slice("data: ".length)), streams[index]!.text);
  });
});

Deno.test("stream: one write is bounded, and one value more is taken from the source", async () => {
  let taken = 0;
  const value = "x".repeat(990);
  const { reader } = open(function* () {
    while (true) {
      taken++;
      yield value;
    }
  }());
  await pause(5);
  equal(taken, 0, "nothing is taken before it is asked for");
  for (let round = 1; round <= 5; round++) {
    const text = (await read(reader))!;
    ok(text.length >= STREAM_WRITE_CHARACTERS && text.length < STREAM_WRITE_CHARACTERS + 1100);
    await pause(5);
    const events = round * Math.ceil(STREAM_WRITE_CHARACTERS / 1000);
    ok(taken <= events + 1, `${taken} values taken, ${events} sent`);
  }
  await reader.cancel();
});

Deno.test("stream: a source that throws ends it with an error event and no [DONE]", async () => {
  const { reader, engine } = open(function* () {
    yield 1;
    throw new EngineError("run step: wanted x, found y", "slow_reader");
  }());
  const text = (await read(reader))!;
  equal(text.startsWith("data: 1\n\ndata: "), true);
  deepEqual(JSON.parse(text.split("data: ")[2]!).error, {
    message: "run step: wanted x, found y",
    type: "server_error",
    param: null,
    code: "slow_reader",
  });
  equal(text.includes("[DONE]"), false);
  equal(await read(reader), null);
  equal(engine.places, 0);
});

Deno.test("stream: a client that leaves ends source and lifetime, also during a wait", async () => {
  for (const waits of [false, true]) {
    let ended = false;
    const { reader, engine, life } = open(function* () {
      try {
        yield 1;
        if (waits) yield new Promise((resolve) => life.signal.onabort = resolve);
        while (true) yield 2;
      } finally {
        ended = true;
      }
    }());
    await read(reader);
    const waiting = waits ? read(reader) : null;
    await pause(2);
    await reader.cancel();
    equal(await waiting, null);
    deepEqual([ended, engine.places, life.signal.aborted], [true, 0, true]);
  }
});

Deno.test("stream: a reader that does not read is cut off, and learns why", async () => {
  let ended = false;
  const { reader, engine, life } = open(
    function* () {
      try {
        while (true) yield "x".repeat(1000);
      } finally {
        ended = true;
      }
    }(),
    { slowReaderMs: 30 },
  );
  ok((await read(reader))!.length > 1000);
  await pause(10);
  equal(engine.places, 1);
  await pause(60);
  deepEqual([engine.places, life.signal.aborted, ended], [0, true, true]);
  const text = (await read(reader))!;
  equal(JSON.parse(text.slice("data: ".length)).error.code, "slow_reader");
  equal(await read(reader), null);
});

Deno.test("stream: a reader within its time is not cut off", async () => {
  const { reader } = open(
    function* () {
      for (let count = 0; count < 6; count++) {
        yield pause(1);
        yield count;
      }
    }(),
    { slowReaderMs: 50 },
  );
  let text = "";
  for (let part = await read(reader); part !== null; part = await read(reader)) {
    text += part;
    await pause(10);
  }
  match(text, /data: 5\n\ndata: \[DONE\]\n\n$/);
});

Deno.test("stream: over a socket, a client that reads nothing is cut off", async () => {
  const EVENT_BYTES = 1000;
  let taken = 0;
  let engine: FakeEngine | undefined;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => {
    const stream = openStream(
      function* () {
        while (true) {
          // Each value in its own turn, as an engine's tokens come.
          if (++taken % 16 === 0) yield pause(0);
          yield "x".repeat(EVENT_BYTES);
        }
      }(),
      { slowReaderMs: 500 },
    );
    engine = stream.engine;
    return stream.response;
  });
  try {
    const socket = await Deno.connect({ port: server.addr.port, hostname: "127.0.0.1" });
    await socket.write(new TextEncoder().encode("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"));
    while (engine === undefined) await pause(5);
    // Until the buffers of the operating system are full.
    for (let before = -1; before !== taken; await pause(100)) before = taken;
    const atRest = taken;
    await pause(100);
    equal(taken, atRest, "events are taken from the source that nobody reads");
    const began = performance.now();
    while (engine.places > 0 && performance.now() - began < 3000) await pause(10);
    equal(engine.places, 0, "the reader is not cut off");
    equal(taken, atRest);
    socket.close();
    console.log(`${(atRest * EVENT_BYTES / 1e6).toFixed(1)} MB filled the socket's buffers`);
  } finally {
    await server.shutdown();
  }
});
