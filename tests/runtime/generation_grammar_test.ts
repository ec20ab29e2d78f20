/** Texts that the engine holds to grammars. */
import assert from "node:assert";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import { type Grammar, PartMatcher, type TokenMatcher } from "../../runtime/engine/grammars.ts";
import { RequestError } from "../../runtime/errors.ts";
import { maskWords } from "../../wasm/bit_mask.ts";
import { FAKE_SHAPE, FakeDevice, nextToken, VOCABULARY } from "./fake_device.ts";
import {
  alone,
  capacity,
  drain,
  request,
  SAMPLER,
  somePrompt,
  tokensOf,
} from "./generation_harness.ts";

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

/** Behind each token that leaves a remainder of 1 by 3 come four that are forced. */
class ForcingMatcher extends EvenMatcher {
  override mask(): Uint32Array {
    return new Uint32Array(maskWords(VOCABULARY)).fill(0xffff_ffff);
  }

  override forced(): Uint32Array {
    const last = this.consumed.at(-1)!;
    return Uint32Array.from(last % 3 === 1 ? [3, 6, 9, 12] : []);
  }
}

Deno.test("Generation appends forced tokens without logits, preempted or not", async () => {
  const prompts = [0, 1, 2, 3, 4, 5].map((seed) => somePrompt(10, seed));
  const run = async (pages: number, overrides: Partial<GenerateRequest>) => {
    const limits = capacity({ pages });
    const device = new FakeDevice(limits);
    const generation = new Generation(
      device,
      FAKE_SHAPE,
      SAMPLER,
      { ...limits, pieceTokens: device.pieceTokens },
      undefined,
      undefined,
      { match: () => new ForcingMatcher(Infinity) },
    );
    prompts.forEach((prompt, id) =>
      generation.submit(
        id,
        request(prompt, { grammar: { kind: "regex", source: "" }, ...overrides }),
      )
    );
    const events = await drain(generation);
    const { preemptions, steps } = generation.stats;
    return { texts: prompts.map((_, id) => tokensOf(events.get(id)!)), preemptions, steps };
  };
  const free = await run(64, {});
  for (const [id, text] of free.texts.entries()) {
    assert.strictEqual(text.length, 12, "max_tokens counts forced tokens");
    const tokens = [...prompts[id]!];
    while (tokens.length < prompts[id]!.length + 12) {
      tokens.push(nextToken(tokens));
      if (tokens.at(-1)! % 3 === 1) tokens.push(3, 6, 9, 12);
    }
    assert.deepStrictEqual(text, tokens.slice(prompts[id]!.length, prompts[id]!.length + 12));
  }
  const tight = await run(12, {});
  assert.ok(tight.preemptions > 0);
  assert.deepStrictEqual(tight.texts, free.texts);
  const stopped = await run(64, { stopIds: [9] });
  assert.ok(stopped.texts.some((text) => text.at(-1) === 9 && text.length < 12));
  const listed = await run(64, { logprobs: 0 });
  assert.ok(listed.steps > free.steps, "log-probabilities take a row for each token");
});

Deno.test("PartMatcher holds a text from a start token to the end of its part", () => {
  const made: EvenMatcher[] = [];
  const make = () => {
    made.push(new EvenMatcher(3));
    return made.at(-1)!;
  };
  const matcher = new PartMatcher(make, [50, 60]);
  const holds: boolean[] = [];
  for (const id of [7, 50, 2, 4, 9, 60, 8]) {
    matcher.consume(id);
    holds.push(matcher.holds);
  }
  assert.deepStrictEqual(holds, [false, true, true, false, false, true, true]);
  assert.deepStrictEqual(made.map(({ consumed }) => consumed), [[50, 2, 4], [60, 8]]);
  assert.ok(!matcher.isOver);
  matcher.free();
  assert.ok(made.every(({ isFree }) => isFree));
});
