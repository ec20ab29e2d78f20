/** Many clients at once against the embedded model on the cpu device. */
import assert from "node:assert/strict";
import { randomSource } from "../reference/random.ts";
import {
  completionRequest,
  isIdle,
  readStream,
  type RunningServer,
  startServer,
  type StreamedText,
  until,
} from "../server/running.ts";

const SEED = 91;
const WORDS = "the a fox river old bridge sun went under over and then slowly every child".split(
  " ",
);

function somePrompt(random: () => number, words: number): string {
  return Array.from({ length: words }, () => WORDS[Math.floor(random() * WORDS.length)]).join(" ");
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function stream(
  { url }: RunningServer,
  fields: Readonly<Record<string, unknown>>,
): Promise<StreamedText> {
  return await readStream(await fetch(completionRequest(url, { ...fields, stream: true })));
}

Deno.test("load: 64 clients get each the text it gets alone, whole and once", async () => {
  const random = randomSource(SEED);
  const jobs = Array.from({ length: 64 }, (_, client) => ({
    prompt: somePrompt(random, 1 + Math.floor(random() * 60)),
    max_tokens: 64,
    temperature: client % 2 === 0 ? 0 : 0.8,
    top_p: client % 3 === 0 ? 0.9 : 1,
    frequency_penalty: client % 4 === 1 ? 0.5 : 0,
    seed: client,
  }));
  const server = await startServer();
  try {
    const together = await Promise.all(jobs.map(async (job) => {
      await pause(random() * 2_000);
      return await stream(server, job);
    }));
    for (const [client, job] of jobs.entries()) {
      const alone = await stream(server, job);
      const found = together[client]!;
      assert.equal(found.text, alone.text, `seed ${SEED}, client ${client}`);
      assert.deepEqual(found.finishReasons, alone.finishReasons);
      assert.deepEqual([found.finishReasons.length, found.doneEvents], [1, 1]);
    }
  } finally {
    await server.stop();
  }
});

Deno.test("load: clients that leave free their slots at once and disturb nobody", async () => {
  const random = randomSource(SEED + 1);
  const server = await startServer({ slots: 4 });
  const { engine, url } = server;
  try {
    const watched = { prompt: "Once upon a time", max_tokens: 1_500, temperature: 0.9, seed: 5 };
    const alone = await stream(server, watched);
    let left = 200;
    const beside = (async () => {
      const texts: string[] = [];
      while (left > 0) texts.push((await stream(server, watched)).text);
      return texts;
    })();
    beside.catch(() => {});
    const times: number[] = [];
    for (let client = 0; client < 200; client++, left--) {
      const leaving = new AbortController();
      const fields = { prompt: somePrompt(random, 5), max_tokens: 1_900, stream: true };
      const response = await fetch(completionRequest(url, fields, leaving.signal));
      const reader = response.body!.getReader();
      for (let read = 0; read <= Math.floor(random() * 3); read++) await reader.read();
      const { steps } = engine.stats;
      leaving.abort();
      await reader.read().catch(() => {});
      // The watched one alone is left.
      const isGone = () => engine.stats.running + engine.stats.queued <= 1;
      times.push(await until(isGone, 1_000, `client ${client} stays`));
      assert.ok(engine.stats.steps - steps < 60);
    }
    times.sort((a, b) => a - b);
    console.log(`slot free after ${times[100]!.toFixed(0)} ms, at most ${times[199]!.toFixed(0)}`);
    // A step of four rows takes about 8 ms here; it is waited for.
    assert.ok(times[199]! <= 50 + 50, `${times[199]} ms`);
    const texts = await beside;
    assert.ok(texts.length > 1);
    for (const text of texts) assert.equal(text, alone.text);
  } finally {
    await server.stop();
  }
});

Deno.test("load: queued clients that leave are gone before the next step", async () => {
  const server = await startServer({ slots: 2 });
  const { engine, url } = server;
  try {
    const leaving = new AbortController();
    // Nothing may end those that run: a text of this temperature ends by itself now and then.
    const sampling = { temperature: 1.5, ignore_eos: true };
    const fields = { prompt: "Once", max_tokens: 1_900, stream: true, ...sampling };
    const running = [1, 2].map(() => fetch(completionRequest(url, fields, leaving.signal)));
    const bodies = await Promise.all(running);
    await until(() => engine.stats.running === 2, 2_000, "two run");
    const times: number[] = [];
    for (let client = 0; client < 20; client++) {
      const own = new AbortController();
      const queued = fetch(completionRequest(url, fields, own.signal));
      await until(() => engine.stats.queued === 1, 2_000, "one waits");
      own.abort();
      await queued.then((response) => response.body?.cancel()).catch(() => {});
      times.push(await until(() => engine.stats.queued === 0, 1_000, "it left"));
    }
    times.sort((a, b) => a - b);
    console.log(
      `left the queue after ${times[10]!.toFixed(0)} ms, at most ${times[19]!.toFixed(0)}`,
    );
    // What is measured includes the step under way and this thread's timer.
    assert.ok(times[10]! <= 10 + 10, `${times[10]} ms`);
    leaving.abort();
    for (const { body } of bodies) await body!.cancel().catch(() => {});
  } finally {
    await server.stop();
  }
});

Deno.test("load: a reader that takes its time is paused and slows nobody else", async () => {
  const server = await startServer({ slots: 8 });
  const { engine, url } = server;
  const fields = { prompt: "Once upon", max_tokens: 120, temperature: 0, seed: 1 };
  /** Tokens a second of seven clients together. */
  const fast = async () => {
    const began = performance.now();
    const before = engine.stats.generatedTokens;
    await Promise.all([1, 2, 3, 4, 5, 6, 7].map(() => stream(server, fields)));
    return (engine.stats.generatedTokens - before) / (performance.now() - began) * 1000;
  };
  // Long enough to fall behind: nothing may end it.
  const slowFields = { ...fields, max_tokens: 2_000, stream: true, ignore_eos: true };
  let reader: ReadableStreamDefaultReader<Uint8Array> | null = null;
  try {
    await fast();
    let best = 0;
    // Other programs only ever slow a round: the first pair that is even proves it.
    for (let round = 0; round < 8 && best < 0.95; round++) {
      const alone = await fast();
      const slow = await server.fetch(completionRequest(url, slowFields));
      reader = slow.body!.getReader();
      await reader.read();
      await until(() => engine.stats.paused === 1, 20_000, "the slow one is paused");
      const beside = await fast();
      assert.equal(engine.stats.paused, 1);
      await reader.cancel();
      await until(() => isIdle(engine), 2_000, "the slow one is gone");
      console.log(`${alone.toFixed(0)} tokens/s alone, ${beside.toFixed(0)} beside a slow reader`);
      best = Math.max(best, beside / alone);
    }
    assert.ok(best >= 0.95, `${best}`);
  } finally {
    await reader?.cancel();
    await server.stop();
  }
});
