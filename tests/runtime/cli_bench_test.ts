/** The measurements of `kedge bench`, over an engine whose speed is known. */
import assert from "node:assert";
import { measureDecode, measurePrefill } from "../../runtime/cli/bench_engine.ts";
import { measureSampler, measureTokenizer } from "../../runtime/cli/bench_text.ts";
import { median, randomIntegers } from "../../runtime/cli/statistics.ts";
import { FakeEngine } from "../server/fake_engine.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";

const tokens = Array.from({ length: 128 }, (_, index) => index);

Deno.test("median() takes the middle, or the mean of the two in the middle", () => {
  assert.equal(median([3]), 3);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([10, 1, 2, 100]), 6);
});

Deno.test("randomIntegers() stays in its range and repeats for a seed", () => {
  for (const seed of [0, 1, 2 ** 31]) {
    const values = randomIntegers(seed, 10, 10_000);
    assert.deepEqual(randomIntegers(seed, 10, 10_000), values);
    const counts = Array.from({ length: 10 }, (_, value) => values.filter((v) => v === value));
    for (const { length } of counts) assert.ok(length > 800 && length < 1_200, `${length}`);
  }
  assert.notDeepEqual(randomIntegers(1, 1e6, 3), randomIntegers(2, 1e6, 3));
});

Deno.test("measurePrefill() asks for the prompt alone, then for its first token", async () => {
  const engine = new FakeEngine({ output: tokens, ends: false });
  const speed = await measurePrefill(engine, 128, 2);
  assert.ok(speed !== null && speed.tokensPerSecond > 0 && speed.firstTokenMs > 0);
  assert.deepEqual(engine.requests.map((request) => request.maxTokens), [0, 1, 0, 1, 0, 1]);
  const prompts = engine.requests.map((request) => request.promptIds.join());
  assert.equal(new Set(prompts).size, prompts.length, "wanted each prompt to differ");
  for (const { promptIds, stopIds } of engine.requests) {
    assert.equal(promptIds.length, 128);
    assert.deepEqual(stopIds, []);
  }
});

Deno.test("measureDecode() counts the tokens of all sequences", async () => {
  const tokenMs = 4;
  const engine = new FakeEngine({ output: tokens, ends: false, tokenMs });
  const [alone, eight] = [await measureDecode(engine, 1, 1), await measureDecode(engine, 8, 1)];
  assert.equal(engine.mostRunning, 8);
  // Timers are late, never early.
  assert.ok(alone!.tokensPerSecond > 50 && alone!.tokensPerSecond <= 1_050 / tokenMs);
  const ratio = eight!.tokensPerSecond / alone!.tokensPerSecond;
  assert.ok(ratio > 4 && ratio < 12, `batch 8 is ${ratio.toFixed(1)} times batch 1`);
});

Deno.test("bench leaves out what the context can't hold", async () => {
  const engine = new FakeEngine({}, 128);
  assert.equal(await measurePrefill(engine, 128, 1), null);
  assert.equal(await measureDecode(engine, 1, 1), null);
  assert.equal(engine.requests.length, 0);
});

Deno.test("the text module's measurements give finite numbers", () => {
  const speed = measureTokenizer(tinyTokenizer, 1);
  assert.ok(Number.isFinite(speed) && speed > 0, `${speed} MB/s`);
  const draw = measureSampler(1);
  assert.ok(Number.isFinite(draw) && draw > 0, `${draw} us`);
});
