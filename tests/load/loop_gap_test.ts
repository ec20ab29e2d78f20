/**
 * Large requests beside eight streams: how long the thread that answers everybody is held. The
 * machine itself may stop the thread for longer, so a case has a few rounds; a hole of our own
 * making is in every one of them.
 */
import { equal, ok } from "node:assert/strict";
import type { Hono } from "hono";
import { randomSource } from "../reference/random.ts";
import { FakeEngine, post, uncheckedAppOver } from "../server/fake_engine.ts";

const HOLE_MS = 25;
const ROUNDS = 4;
const STREAMS = 8;
const MEGABYTE = 1_000_000;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";

const words = "The quick brown fox jumps over the lazy dog; Grüße aus Köln, 12345 mal. ";
const text = words.repeat(MEGABYTE / words.length);
const half = Math.floor(text.length / 2);
const random = randomSource(8_128);
const letters = Array.from({ length: MEGABYTE }, () => LETTERS[Math.floor(random() * 26)]).join("");
const userOf = (content: unknown) => ({ role: "user", content });
const ids = Array.from({ length: 200_000 }, (_, at) => 97 + at % 26);

const toolOf = (_: unknown, at: number) => ({
  type: "function",
  function: {
    name: `f${at}`,
    parameters: Object.fromEntries(
      Array.from({ length: 50 }, (_, key) => [`k${key}`, { type: "string", description: "x" }]),
    ),
  },
});
const callOf = (_: unknown, at: number) => ({
  id: `functions.f:${at}`,
  type: "function",
  function: { name: "f", arguments: Object.fromEntries(ids.slice(0, 500).entries()) },
});

const CHAT = "/v1/chat/completions", COMPLETIONS = "/v1/completions";
const CASES: readonly [name: string, path: string, fields: object][] = [
  ["nothing else", CHAT, { messages: [userOf("x")] }],
  ["one message", CHAT, { messages: [userOf(text)] }],
  ["one message, streamed", CHAT, { messages: [userOf(text)], stream: true }],
  ["one word", CHAT, { messages: [userOf("x".repeat(MEGABYTE))] }],
  ["random letters", CHAT, { messages: [userOf(letters)] }],
  ["emoji", CHAT, { messages: [userOf("🙂👍🏽".repeat(MEGABYTE / 14))] }],
  ["spaces", COMPLETIONS, { prompt: " \n".repeat(MEGABYTE / 3) }],
  ["eight at once", CHAT, { messages: [userOf(text.slice(half))] }],
  ["parts", CHAT, {
    messages: [userOf(Array(1000).fill({ type: "text", text: "a ".repeat(500) }))],
  }],
  ["12,000 messages", CHAT, { messages: Array(12_000).fill(userOf("x ".repeat(20))) }],
  ["a wrong last message", CHAT, { messages: [...Array(12_000).fill(userOf("x")), userOf(5)] }],
  ["tools", CHAT, { messages: [userOf("x")], tools: Array.from({ length: 400 }, toolOf) }],
  ["tool calls", CHAT, {
    messages: [{ role: "assistant", tool_calls: Array.from({ length: 200 }, callOf) }],
  }],
  ["text", COMPLETIONS, { prompt: text }],
  ["two texts, echoed", COMPLETIONS, {
    prompt: [text.slice(half), text.slice(0, half)],
    echo: true,
  }],
  ["ids", COMPLETIONS, { prompt: ids }],
  ["an ignored list", COMPLETIONS, { prompt: "x", ignored: ids }],
  ["echoed, streamed", COMPLETIONS, { prompt: text, echo: true, stream: true }],
  ["scored", COMPLETIONS, { prompt: ids.slice(0, 10_000), echo: true, logprobs: 2, max_tokens: 0 }],
  ["tokenize", "/tokenize", { prompt: text }],
  ["tokenize, pieces", "/tokenize", { prompt: text, with_pieces: true, return_token_strs: true }],
  ["detokenize", "/detokenize", { tokens: ids }],
];

/** Looks at the clock every millisecond or so. */
class Heart {
  #last = performance.now();
  #worst = 0;
  #timer = setTimeout(() => this.#beat(), 1);

  /** The longest time between two beats since the last call. */
  take(): number {
    const worst = this.#worst;
    this.#worst = 0;
    return worst;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #beat(): void {
    const now = performance.now();
    this.#worst = Math.max(this.#worst, now - this.#last);
    this.#last = now;
    this.#timer = setTimeout(() => this.#beat(), 1);
  }
}

async function startStreams(app: Hono) {
  const readers: ReadableStreamDefaultReader<Uint8Array>[] = [];
  for (let stream = 0; stream < STREAMS; stream++) {
    const response = await post(app, CHAT, { messages: [userOf("Hello!")], stream: true });
    readers.push(response.body!.getReader());
  }
  const readings = readers.map(async (reader) => {
    while (!(await reader.read()).done);
  });
  return async () => {
    await Promise.all(readers.map((reader) => reader.cancel()));
    await Promise.all(readings);
  };
}

/** The body is in pieces, as it comes from a socket. */
function bodyOf(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, at += 64 * 1024));
    },
  });
}

Deno.test(`loop: no large request holds the thread for over ${HOLE_MS} ms`, async () => {
  const engine = new FakeEngine(
    (request) =>
      request.promptIds.length < 20 && request.maxTokens > 100
        ? { output: Array(20_000).fill(97), ends: false, tokenMs: 5 }
        : { output: "a b" },
    2_000_000,
  );
  const app = uncheckedAppOver(engine);
  const stopStreams = await startStreams(app);
  const heart = new Heart();
  const holes: [string, number][] = [];
  try {
    for (const [name, path, fields] of CASES) {
      const bytes = new TextEncoder().encode(JSON.stringify({ max_tokens: 2, ...fields }));
      const status = name === "a wrong last message" ? 400 : 200;
      const ask = async () => {
        const init = { method: "POST", body: bodyOf(bytes), duplex: "half" } as RequestInit;
        const response = await app.request(path, init);
        equal(response.status, status, name);
        for await (const _ of response.body!);
      };
      let least = Infinity;
      for (let round = 0; round < ROUNDS && least > 0.8 * HOLE_MS; round++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        heart.take();
        await Promise.all(Array.from({ length: name === "eight at once" ? 8 : 1 }, ask));
        await new Promise((resolve) => setTimeout(resolve, 5));
        least = Math.min(least, heart.take());
      }
      holes.push([name, least]);
      console.log(`${name}: ${least.toFixed(1)} ms (${bytes.length} bytes)`);
    }
  } finally {
    heart.stop();
    await stopStreams();
  }
  for (const [name, hole] of holes) ok(hole <= HOLE_MS, `${name}: ${hole} ms`);
});
