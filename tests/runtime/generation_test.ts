import assert from "node:assert";
import type { GenerateRequest, TokenLogprob } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import type { Grammar, TokenMatcher } from "../../runtime/engine/grammars.ts";
import { Pool } from "../../runtime/engine/pool.ts";
import type { RequestEvent } from "../../runtime/engine/protocol.ts";
import { GREEDY_SAMPLING, type TokenSampler } from "../../runtime/engine/sampling.ts";
import { RequestError } from "../../runtime/errors.ts";
import type { Capacity } from "../../runtime/model/device.ts";
import { maskWords } from "../../wasm/bit_mask.ts";
import { FAKE_SHAPE, FakeDevice, nextToken, VOCABULARY } from "./fake_device.ts";

/** Greedy, with exact log-probabilities. */
const SAMPLER: TokenSampler = {
  sample: (logits) => logits.indexOf(Math.max(...logits)),
  sampleCandidates: () => null,
  logprobs(logits, id) {
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    return { logprob: logits[id]! - Math.log(sum), top: [] };
  },
};

function capacity(overrides: Partial<Capacity> = {}): Capacity {
  return {
    slots: 4,
    pages: 64,
    pageTokens: 4,
    rows: 16,
    logitRows: 8,
    sequences: 4,
    pagesPerSequence: 64,
    logitEdits: 97,
    latentFormat: "f16",
    ...overrides,
  };
}

function request(promptIds: number[], overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    promptIds: Uint32Array.from(promptIds),
    maxTokens: 12,
    sampling: GREEDY_SAMPLING,
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
    ...overrides,
  };
}

function make(limits: Capacity) {
  const device = new FakeDevice(limits);
  const { pieceTokens } = device;
  const generation = new Generation(device, FAKE_SHAPE, SAMPLER, { ...limits, pieceTokens });
  return { device, generation };
}

/** Runs until idle; events by request. */
async function drain(generation: Generation): Promise<Map<number, RequestEvent[]>> {
  const events = new Map<number, RequestEvent[]>();
  for (let steps = 0; steps < 10_000; steps++) {
    const made = await generation.step();
    if (made === null) return events;
    for (const event of made) events.set(event.id, [...events.get(event.id) ?? [], event]);
  }
  assert.fail("the engine never gets done");
}

function tokensOf(events: readonly RequestEvent[]): number[] {
  return events.flatMap((item) =>
    "event" in item && item.event.type === "token" ? [item.event.id] : []
  );
}

/** What the fake model says alone: the truth that batching must not change. */
function alone(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let index = 0; index < count; index++) tokens.push(nextToken(tokens));
  return tokens.slice(prompt.length);
}

function somePrompt(length: number, seed: number): number[] {
  return Array.from(
    { length },
    (_, index) => (seed * 31 + index * 17 + index * index) % VOCABULARY,
  );
}

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

/** Allows even tokens, `count` of them, and fails on command. */
class EvenMatcher implements TokenMatcher {
  readonly holds = true;
  isFree = false;
  consumed: number[] = [];
  constructor(private readonly count: number, private readonly failsAt = Infinity) {}

  mask(): Uint32Array {
    return new Uint32Array(maskWords(VOCABULARY)).fill(0x5555_5555);
  }

  forced(): Uint32Array {
    return new Uint32Array(0);
  }

  consume(id: number): void {
    if (this.consumed.length === this.failsAt) throw new RequestError("follow the grammar: no");
    this.consumed.push(id);
  }

  get isOver(): boolean {
    return this.consumed.length === this.count;
  }

  free(): void {
    this.isFree = true;
  }
}

Deno.test("Generation holds a text to its grammar and ends with it", async () => {
  const limits = capacity();
  const device = new FakeDevice(limits);
  const matchers = [new EvenMatcher(5), new EvenMatcher(5, 2)];
  const waiting = [...matchers];
  const source = {
    match({ source }: Grammar) {
      if (source === "bad") throw new RequestError("follow the grammar: bad");
      return waiting.shift()!;
    },
  };
  const { pieceTokens } = device;
  const generation = new Generation(
    device,
    FAKE_SHAPE,
    SAMPLER,
    { ...limits, pieceTokens },
    undefined,
    undefined,
    source,
  );
  const grammar: Grammar = { kind: "regex", source: "good" };
  const prompt = somePrompt(9, 3);
  generation.submit(0, request(prompt, { grammar }));
  generation.submit(1, request(prompt));
  generation.submit(2, request(prompt, { grammar }));
  assert.throws(
    () => generation.submit(3, request(prompt, { grammar: { ...grammar, source: "bad" } })),
    RequestError,
  );
  const events = await drain(generation);
  const held = tokensOf(events.get(0)!);
  assert.strictEqual(held.length, 5);
  assert.ok(held.every((id) => id % 2 === 0));
  assert.deepStrictEqual(matchers[0]!.consumed, held);
  assert.deepStrictEqual(tokensOf(events.get(1)!), alone(prompt, 12));
  assert.strictEqual(tokensOf(events.get(2)!).length, 3);
  assert.ok("error" in events.get(2)!.at(-1)!, "a grammar's failure ends its request alone");
  assert.ok(matchers.every(({ isFree }) => isFree));
  assert.strictEqual(generation.stats.freeSlots, 4, "no slot is lost");
});
