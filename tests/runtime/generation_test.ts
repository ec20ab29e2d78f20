import assert from "node:assert";
import type { TokenLogprob } from "../../runtime/engine/engine.ts";
import { Pool } from "../../runtime/engine/pool.ts";
import { RequestError } from "../../runtime/errors.ts";
import {
  alone,
  capacity,
  drain,
  make,
  request,
  somePrompt,
  tokensOf,
} from "./generation_harness.ts";

Deno.test("Generation gives each of many requests the tokens it gets alone", async () => {
  const { generation, device } = make(capacity());
  const prompts = Array.from({ length: 20 }, (_, index) => somePrompt(1 + index * 3 % 40, index));
  prompts.forEach((prompt, id) => generation.submit(id, request(prompt)));
  const events = await drain(generation);
  for (const [id, prompt] of prompts.entries()) {
    assert.deepStrictEqual(tokensOf(events.get(id)!), alone(prompt, 12), `request ${id}`);
    const dones = events.get(id)!.filter((item) => "event" in item && item.event.type === "done");
    assert.strictEqual(dones.length, 1);
    assert.strictEqual(events.get(id)!.at(-1), dones[0]);
  }
  assert.strictEqual(device.zeroed.length, 20, "every slot is zeroed on release");
});

Deno.test("Generation preempts when pages run out and resumes exactly", async () => {
  // 12 pages of 4 tokens: four sequences of up to 22 tokens need 24.
  const { generation, device } = make(capacity({ pages: 12 }));
  const prompts = Array.from({ length: 6 }, (_, index) => somePrompt(10, index));
  prompts.forEach((prompt, id) => generation.submit(id, request(prompt)));
  const events = await drain(generation);
  for (const [id, prompt] of prompts.entries()) {
    assert.deepStrictEqual(tokensOf(events.get(id)!), alone(prompt, 12), `request ${id}`);
  }
  assert.ok(device.zeroed.length > 6, "this load must preempt");
});

Deno.test("Generation holds up a running stream by no more than a step", async () => {
  const { generation, device } = make(capacity());
  generation.submit(1, request([5], { maxTokens: 40 }));
  await generation.step();
  generation.submit(2, request(somePrompt(100, 3)));
  for (let step = 0; step < 8; step++) {
    const events = await generation.step();
    assert.ok(events?.some((event) => event.id === 1), `no token in step ${step}`);
  }
  assert.ok(device.stepRows.every((rows) => rows <= 16));
});

Deno.test("Generation shares a step's rows among several prompts", async () => {
  const { generation } = make(capacity());
  generation.submit(1, request(somePrompt(100, 1), { maxTokens: 1 }));
  generation.submit(2, request(somePrompt(8, 2), { maxTokens: 1 }));
  assert.ok((await generation.step())?.some((event) => event.id === 2));
});

Deno.test("Generation gives log-probabilities of the prompt, preempted or not", async () => {
  const prompt = somePrompt(23, 9);
  const wanted = prompt.slice(1).length;
  for (const pages of [64, 12]) {
    const { generation } = make(capacity({ pages, logitRows: 5 }));
    for (const id of [1, 2, 3]) {
      generation.submit(id, request(prompt, { logprobs: 0, promptLogprobs: true, maxTokens: 9 }));
    }
    const events = await drain(generation);
    const all = [1, 2, 3].map((id) => {
      const first = events.get(id)![0]!;
      assert.ok("event" in first && first.event.type === "prompt");
      return first.event.logprobs;
    });
    for (const logprobs of all) {
      assert.strictEqual(logprobs.length, wanted);
      assert.deepStrictEqual(logprobs.map((item: TokenLogprob) => item.id), prompt.slice(1));
      assert.deepStrictEqual(logprobs, all[0]);
      assert.ok(logprobs.every((item) => item.logprob < 0));
    }
  }
});

Deno.test("Generation ends at a stop id and delivers it", async () => {
  const { generation } = make(capacity());
  const tokens = alone([1, 2, 3], 12);
  generation.submit(1, request([1, 2, 3], { stopIds: [tokens[4]!] }));
  const events = (await drain(generation)).get(1)!;
  assert.deepStrictEqual(tokensOf(events), tokens.slice(0, tokens.indexOf(tokens[4]!) + 1));
  const last = events.at(-1)!;
  assert.ok("event" in last && last.event.type === "done" && last.event.reason === "stop");
});

Deno.test("Generation with maxTokens 0 only processes the prompt", async () => {
  const { generation } = make(capacity());
  generation.submit(1, request(somePrompt(30, 1), { maxTokens: 0 }));
  const events = (await drain(generation)).get(1)!;
  assert.strictEqual(events.length, 1);
  assert.ok("event" in events[0]! && events[0].event.type === "done");
});

Deno.test("Generation frees a cancelled request's place, waiting or running", async () => {
  const { generation } = make(capacity({ slots: 1, sequences: 1 }));
  for (const id of [1, 2, 3]) generation.submit(id, request([id]));
  await generation.step();
  generation.cancel(1);
  generation.cancel(2);
  const events = await drain(generation);
  assert.deepStrictEqual([...events.keys()], [3]);
  assert.deepStrictEqual(tokensOf(events.get(3)!), alone([3], 12));
});

Deno.test("Generation ends only the sequence whose logits are not finite", async () => {
  const { generation, device } = make(capacity());
  device.poison = 50;
  generation.submit(1, request([50]));
  generation.submit(2, request([3], { maxTokens: 1 }));
  const events = await drain(generation);
  const failed = events.get(1)![0]!;
  assert.ok("error" in failed && failed.error.code === "non_finite_logits");
  assert.deepStrictEqual(tokensOf(events.get(2)!), alone([3], 1));
});

Deno.test("Generation refuses what could never fit in the pages", () => {
  const { generation } = make(capacity({ pages: 4 }));
  assert.throws(
    () => generation.submit(1, request(somePrompt(10, 1), { maxTokens: 7 })),
    (error) =>
      error instanceof RequestError && /at most 16 tokens together, found 17/.test(error.message),
  );
  assert.strictEqual(generation.stats.queued, 0);
});

Deno.test("Generation leaves a paused request its place and goes on with it later", async () => {
  const { generation } = make(capacity());
  generation.submit(1, request([1]));
  generation.submit(2, request([2]));
  await generation.step();
  generation.setPaused(1, true);
  const meanwhile = await drain(generation);
  assert.deepStrictEqual([...meanwhile.keys()], [2]);
  assert.strictEqual(generation.stats.running, 1);
  generation.setPaused(1, false);
  assert.deepStrictEqual(tokensOf((await drain(generation)).get(1)!), alone([1], 12).slice(1));
});

Deno.test("Generation gives slots to the owner that has fewest", async () => {
  const { generation } = make(capacity({ slots: 2, sequences: 2 }));
  for (const id of [1, 2, 3, 4]) generation.submit(id, request([id], { owner: "many" }));
  generation.submit(5, request([5], { owner: "one" }));
  const order: number[] = [];
  for (let events = await generation.step(); events !== null; events = await generation.step()) {
    for (const { id } of events) if (!order.includes(id)) order.push(id);
  }
  assert.deepStrictEqual(order.slice(0, 3).sort(), [1, 2, 5].sort());
});

Deno.test("Generation shares prompt rows between owners, then between their prompts", async () => {
  const { generation } = make(capacity({ rows: 16 }));
  const prompt = somePrompt(60, 4);
  for (const id of [1, 2, 3]) {
    generation.submit(id, request(prompt, { owner: "many", progress: true }));
  }
  generation.submit(4, request(prompt, { owner: "one", progress: true }));
  const processed = (await generation.step())!.map((item) =>
    "event" in item && item.event.type === "progress" ? item.event.processed : -1
  );
  assert.deepStrictEqual(processed, [3, 8, 3, 2]);
});

Deno.test("Generation keeps the oldest going while younger ones give way", async () => {
  // One page a token: the third and fourth can't stay.
  const { generation } = make(capacity({ pages: 40, pageTokens: 1 }));
  for (const id of [1, 2, 3, 4]) generation.submit(id, request(somePrompt(8, id)));
  const ends: number[] = [];
  for (let events = await generation.step(); events !== null; events = await generation.step()) {
    for (const item of events) {
      if ("event" in item && item.event.type === "done") ends.push(item.id);
    }
  }
  assert.ok(generation.stats.preemptions > 0);
  assert.deepStrictEqual(ends, [1, 2, 3, 4]);
});

Deno.test("Pool refuses to take back what is free", () => {
  const pool = new Pool("slot", 2);
  const first = pool.take()!;
  pool.give(first);
  assert.throws(() => pool.give(first), /slot 0: wanted a taken one, found a free one/);
  assert.strictEqual(pool.freeCount, 2);
});
