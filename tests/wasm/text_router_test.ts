/** Routing bookkeeping against plain TypeScript. */
import assert from "node:assert";
import { loadTextModule, Router } from "../../wasm/text.ts";
import { randomSource } from "../reference/random.ts";

loadTextModule();

Deno.test("Router.select() gives the vector of six experts, weighted without bias", () => {
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  const scores = Float32Array.of(0.2, -0.4, 1, 0.9, -1, 0.5).map(sigmoid);
  const router = new Router(6, 2);
  const { experts, weights } = router.select(
    scores,
    Float32Array.of(0, 0.5, -0.3, 0, 0.1, 0),
    true,
    2.446,
  );
  assert.deepEqual([...experts], [1, 3]);
  assert.ok(Math.abs(weights[0]! - 0.8825349804) < 2e-7);
  assert.ok(Math.abs(weights[1]! - 1.5634650196) < 2e-7);
  router.free();
});

Deno.test("Router.select() and group() equal their definitions on random scores with ties", () => {
  const seed = 41;
  const random = randomSource(seed);
  for (let round = 0; round < 300; round++) {
    const expertCount = 1 + Math.floor(random() * 70);
    const chosenCount = 1 + Math.floor(random() * Math.min(expertCount, 9));
    const rows = Math.floor(random() * 12);
    // Few values, so that ties are common; eighths add up exactly.
    const value = () => round % 2 === 0 ? Math.floor(random() * 8) / 8 : random();
    const scores = Float32Array.from({ length: rows * expertCount }, value);
    const bias = Float32Array.from({ length: expertCount }, () => value() - 0.5);
    const renormalize = round % 3 > 0;
    const router = new Router(expertCount, chosenCount);
    const { experts, weights } = router.select(scores, bias, renormalize, 2.5);
    assert.equal(experts.length, rows * chosenCount);
    for (let row = 0; row < rows; row++) {
      const own = scores.subarray(row * expertCount, (row + 1) * expertCount);
      const wanted = Array.from(own.keys())
        .sort((a, b) => Math.fround(own[b]! + bias[b]!) - Math.fround(own[a]! + bias[a]!) || a - b)
        .slice(0, chosenCount);
      const at = row * chosenCount;
      assert.deepEqual([...experts.subarray(at, at + chosenCount)], wanted, `seed ${seed}`);
      const sum = wanted.reduce((total, expert) => total + own[expert]!, 0);
      wanted.forEach((expert, i) => {
        const weight = 2.5 * own[expert]! / (renormalize ? sum + 1e-20 : 1);
        assert.ok(Math.abs(weights[at + i]! - weight) <= 1e-6 * weight);
      });
    }
    const { counts, offsets, order } = router.group(experts);
    const wanted = Array.from(experts.keys()).sort((a, b) => experts[a]! - experts[b]! || a - b);
    assert.deepEqual([...order], wanted);
    assert.equal(offsets.length, expertCount + 1);
    for (let expert = 0; expert < expertCount; expert++) {
      assert.equal(counts[expert], experts.filter((other) => other === expert).length);
      assert.equal(offsets[expert + 1]! - offsets[expert]!, counts[expert]);
    }
    assert.equal(offsets[0], 0);
    router.free();
  }
});

Deno.test("Router.takeUse() sums what was grouped and starts anew", () => {
  const router = new Router(4, 2);
  router.group(Uint32Array.of(0, 3, 3, 1));
  router.group(Uint32Array.of(3, 0));
  assert.deepEqual([...router.takeUse()], [2, 1, 0, 3]);
  assert.deepEqual([...router.takeUse()], [0, 0, 0, 0]);
  router.free();
});

Deno.test("Router refuses wrong sizes, indices and NaN", () => {
  assert.throws(() => new Router(4, 5), /wanted 1 to 4 experts a token, found 5/);
  assert.throws(() => new Router(4, 0), /wanted 1 to 4 experts a token, found 0/);
  const router = new Router(4, 2);
  const four = new Float32Array(4);
  assert.throws(
    () => router.select(new Float32Array(6), four, true, 1),
    /wanted rows of 4 scores and 4 biases, found 6 and 4/,
  );
  assert.throws(() => router.select(four, new Float32Array(3), true, 1), /found 4 and 3/);
  assert.throws(
    () => router.select(Float32Array.of(0, 0, 0, 0, 0, NaN, 0, 0), four, true, 1),
    /found NaN in row 1 at expert 1/,
  );
  assert.throws(() => router.group(Uint32Array.of(1, 4)), /wanted indices below 4, found 4/);
  // What is refused is not counted.
  assert.deepEqual([...router.takeUse()], [0, 0, 0, 0]);
  router.free();
});
