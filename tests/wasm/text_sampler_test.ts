/** The sampler against a plain f64 reference that sorts the whole row. */
import assert from "node:assert";
import { loadTextModule, type SampleParameters, Sampler } from "../../wasm/text.ts";
import { normals, randomSource } from "../reference/random.ts";

loadTextModule();

const greedy: SampleParameters = {
  temperature: 0,
  topK: 0,
  typicalP: 1,
  topP: 1,
  minP: 0,
  seed: 0,
};
/** Tokens that come first in a draw. */
const BEST = 256;

/**
 * u of a draw: output `position` of SplitMix64 seeded with the first output for `seed`; of a
 * further attempt an output of one seeded with that.
 */
function uniform(seed: number, position: number, attempt: number): number {
  const mask = (1n << 64n) - 1n;
  const golden = 0x9e3779b97f4a7c15n;
  const finish = (word: bigint) => {
    word = ((word ^ (word >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    word = ((word ^ (word >> 27n)) * 0x94d049bb133111ebn) & mask;
    return word ^ (word >> 31n);
  };
  const state = finish((BigInt(seed) + golden) & mask);
  let word = finish((state + BigInt(position + 1) * golden) & mask);
  if (attempt > 0) word = finish((word + BigInt(attempt) * golden) & mask);
  return Number(word >> 11n) / 2 ** 53;
}

interface Reference {
  readonly token: number;
  /** Distance of the nearest decision to its threshold, as a share of the weight. */
  readonly margin: number;
}

interface Kept {
  readonly id: number;
  readonly logit: number;
  readonly weight: number;
}

const sumOf = (kept: readonly Kept[]) => kept.reduce((sum, { weight }) => sum + weight, 0);

/** Sorts, filters and draws as Sampler's documentation says. */
function sampleByDefinition(
  logits: Float32Array,
  parameters: SampleParameters,
  position: number,
): Reference {
  const { temperature, topK, typicalP, topP, minP, seed } = parameters;
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const order = Array.from(logits, (logit, id): Kept => ({
    id,
    logit,
    weight: Math.exp((logit - max) / temperature),
  })).sort((a, b) => b.logit - a.logit || a.id - b.id);
  let margin = Infinity;
  /** The shortest prefix with `share` of the weight. */
  const prefix = (items: readonly Kept[], share: number): Kept[] => {
    if (share >= 1) return [...items];
    const total = sumOf(items);
    let [sum, count] = [0, 0];
    while (count === 0 || count < items.length && sum < share * total) {
      sum += items[count++]!.weight;
      margin = Math.min(margin, Math.abs(sum / total - share));
    }
    return items.slice(0, count);
  };
  const topped = topK > 0 ? order.slice(0, topK) : order;
  let typical: readonly Kept[] = topped;
  if (typicalP < 1) {
    const total = sumOf(topped);
    const possible = topped.filter(({ weight }) => weight > 0);
    const surprise = ({ weight }: Kept) => Math.log(total) - Math.log(weight);
    const entropy = possible.reduce((sum, item) => sum + item.weight / total * surprise(item), 0);
    const far = (item: Kept) => Math.abs(surprise(item) - entropy);
    const nearest = possible.toSorted((a, b) => far(a) - far(b) || a.id - b.id);
    // Equally far ones on both sides of the cut may change places by rounding.
    const ids = new Set(prefix(nearest, typicalP).map(({ id }) => id));
    const [last, next] = [nearest[ids.size - 1]!, nearest[ids.size]];
    if (next !== undefined && last.logit !== next.logit) {
      margin = Math.min(margin, far(next) - far(last));
    }
    typical = topped.filter(({ id }) => ids.has(id));
  }
  const nucleus = prefix(typical, topP);
  const bound = minP * nucleus[0]!.weight;
  for (const { weight } of nucleus) {
    if (minP > 0) margin = Math.min(margin, Math.abs(weight / bound - 1));
  }
  const kept = nucleus.filter(({ weight }) => weight >= bound);
  const isAll = topped.length <= BEST;
  if (isAll || typicalP < 1) {
    const pool = isAll ? kept : kept.toSorted((a, b) => a.id - b.id);
    return drawFrom(pool, kept, margin, (attempt) => uniform(seed, position, attempt));
  }
  // Tokens outside of a large nucleus are drawn and drawn again.
  const isLarge = kept.length > BEST && topP < 1;
  const pool = isLarge ? topped.filter(({ weight }) => weight >= bound) : kept;
  return drawFrom(bestFirst(pool), kept, margin, (attempt) => uniform(seed, position, attempt));
}

/** Draws from `pool` until the token is one of `kept`. */
function drawFrom(
  pool: readonly Kept[],
  kept: readonly Kept[],
  before: number,
  draw: (attempt: number) => number,
): Reference {
  let margin = before;
  const inside = new Set(kept.map(({ id }) => id));
  const poolSum = sumOf(pool);
  for (let attempt = 0;; attempt++) {
    const target = draw(attempt) * poolSum;
    let [sum, token] = [0, pool.at(-1)!.id];
    for (const { id, weight } of pool) {
      sum += weight;
      margin = Math.min(margin, Math.abs(sum - target) / poolSum);
      if (target >= sum) continue;
      token = id;
      break;
    }
    if (inside.has(token)) return { token, margin };
  }
}

/** Tokens in their order: the first 256 stay, the others follow by id. */
function bestFirst(tokens: readonly Kept[]): Kept[] {
  return [...tokens.slice(0, BEST), ...tokens.slice(BEST).sort((a, b) => a.id - b.id)];
}

const pick = <T>(random: () => number, values: readonly T[]): T =>
  values[Math.floor(random() * values.length)]!;

function randomParameters(random: () => number, size: number): SampleParameters {
  return {
    temperature: pick(random, [0.05, 0.3, 0.7, 1, 1.5, 2, 10]),
    topK: pick(random, [0, 0, 0, 1, 2, 5, 40, 300, size - 1, size, 10 * size].map(Math.trunc)),
    typicalP: pick(random, [1, 1, 1, 1, 0.95, 0.5, 0]),
    topP: pick(random, [1, 1, 0.999, 0.95, 0.7, 0.3, 0.01, 0]),
    minP: pick(random, [0, 0, 0, 0.01, 0.1, 0.9, 1]),
    seed: Math.floor(random() * 2 ** 53),
  };
}

/** Rows as models give them: some flat, some peaked, some with ties and masked tokens. */
function randomRow(random: () => number, size: number): Float32Array {
  const row = normals(random, size, pick(random, [0, 0.1, 1, 3, 10]));
  if (random() < 0.3) row.forEach((logit, id) => row[id] = Math.round(logit));
  if (random() < 0.5) { for (let i = 0; i < 3; i++) row[Math.floor(random() * size)] = 12 + i; }
  if (random() < 0.3) {
    for (let i = 0; i < size / 2; i++) row[Math.floor(random() * size)] = -Infinity;
  }
  if (!row.some(Number.isFinite)) row[0] = 0;
  return row;
}

/** Compares `count` draws with the reference; those too near to a threshold are only made. */
function compare(size: number, count: number, seed: number): void {
  const random = randomSource(seed);
  const sampler = new Sampler(size);
  // Weights are f32: whether a sum reaches a threshold this near, as a share, is open. Rounding
  // averages out over many tokens.
  const marginMin = Math.min(2e-6, 0.1 / size);
  let compared = 0;
  for (let i = 0; i < count; i++) {
    const row = randomRow(random, size);
    const parameters = randomParameters(random, size);
    const wanted = sampleByDefinition(row, parameters, i);
    const found = sampler.sample(row, parameters, i);
    assert.ok(row[found]! > -Infinity);
    if (wanted.margin < marginMin) continue;
    compared++;
    const what = `seed ${seed}, row ${i}, ${JSON.stringify(parameters)}`;
    assert.equal(found, wanted.token, what);
  }
  assert.ok(compared >= count / 2, `compared ${compared} of ${count}`);
  sampler.free();
}

for (const [size, count] of [[1, 50], [2, 400], [7, 1500], [128, 1000], [300, 2000], [4096, 400]]) {
  Deno.test(`Sampler.sample() equals the reference on ${count} rows of ${size}`, () => {
    compare(size!, count!, 100 + size!);
  });
}

Deno.test("Sampler.sample() equals the reference on the full vocabulary of 163,840", () => {
  compare(163_840, 12, 7);
});

Deno.test("Sampler.sampleCandidates() gives what the whole row gives, or null", () => {
  const random = randomSource(35);
  let [decided, differing] = [0, 0];
  for (
    const [size, count] of [[3, 200], [255, 300], [256, 300], [257, 300], [4096, 300]] as const
  ) {
    const sampler = new Sampler(size);
    for (let i = 0; i < count; i++) {
      const row = randomRow(random, size);
      const parameters = randomParameters(random, size);
      const { temperature } = parameters;
      const ids = Uint32Array.from(
        Array.from(row.keys()).sort((a, b) => row[a] === row[b] ? a - b : row[b]! - row[a]!)
          .slice(0, BEST),
      );
      const logits = Float32Array.from(ids, (id) => row[id]!);
      const max = logits[0]! / temperature;
      const total = row.reduce((sum, logit) => sum + Math.exp(logit / temperature - max), 0);
      const scaled = max + Math.log(total);
      const found = sampler.sampleCandidates(ids, logits, scaled, parameters, i);
      if (found === null) {
        assert.ok(size > BEST && !(parameters.topK > 0 && parameters.topK <= BEST));
        continue;
      }
      decided++;
      if (found !== sampler.sample(row, parameters, i)) differing++;
    }
    sampler.free();
  }
  assert.ok(decided > 1000, `${decided} decided`);
  // Sums in another precision: a draw within a rounding of a border may fall to either side.
  assert.ok(differing <= decided / 1000, `${differing} of ${decided} differ`);
});

Deno.test("Sampler.sample() with temperature 0 takes the largest, the lowest id of equals", () => {
  const random = randomSource(31);
  for (const size of [1, 5, 127, 128, 129, 1000]) {
    const sampler = new Sampler(size);
    for (let i = 0; i < 200; i++) {
      const row = normals(random, size, 2).map(Math.round);
      const wanted = row.indexOf(row.reduce((a, b) => Math.max(a, b)));
      assert.equal(sampler.sample(row, greedy, i), wanted);
      const filtered = { ...greedy, topK: 3, topP: 0.5, minP: 0.5 };
      assert.equal(sampler.sample(row, filtered, i), wanted);
      // So low a temperature leaves only the largest any weight.
      assert.ok(row[sampler.sample(row, { ...greedy, temperature: 1e-300 }, i)] === row[wanted]);
    }
    const negative = new Float32Array(size).fill(-0);
    negative[size - 1] = 0;
    assert.equal(sampler.sample(negative, greedy, 0), 0);
    sampler.free();
  }
});

Deno.test("Sampler.sample() draws with the frequencies of the softmax", () => {
  const size = 40;
  const draws = 40_000;
  const row = normals(randomSource(32), size, 1.5);
  const sampler = new Sampler(size);
  const parameters = { ...greedy, temperature: 0.8, seed: 99 };
  const counts = new Float64Array(size);
  for (let i = 0; i < draws; i++) counts[sampler.sample(row, parameters, i)]!++;
  const weights = Array.from(row, (logit) => Math.exp(logit / 0.8));
  const total = weights.reduce((a, b) => a + b);
  let chiSquare = 0;
  weights.forEach((weight, id) => {
    const wanted = draws * weight / total;
    chiSquare += (counts[id]! - wanted) ** 2 / wanted;
  });
  // 39 degrees of freedom: 99.9 % of right samplers stay below 72.1; far too even is wrong as well.
  assert.ok(chiSquare > 14 && chiSquare < 72.1, `chi-square ${chiSquare}`);
  sampler.free();
});

Deno.test("Sampler.sample() depends on seed and position alone", () => {
  const row = new Float32Array(5000);
  const [one, other] = [new Sampler(5000), new Sampler(5000)];
  const draw = (sampler: Sampler, seed: number, position: number) =>
    sampler.sample(row, { ...greedy, temperature: 1, seed }, position);
  const forwards = Array.from({ length: 300 }, (_, i) => draw(one, 1, i));
  const backwards = Array.from({ length: 300 }, (_, i) => draw(other, 1, 299 - i)).reverse();
  assert.deepEqual(forwards, backwards);
  const same = (a: number[]) => a.filter((token, i) => token === forwards[i]).length;
  assert.ok(same(Array.from({ length: 300 }, (_, i) => draw(one, 2, i))) < 5);
  assert.ok(same(Array.from({ length: 300 }, (_, i) => draw(one, 1, i + 1))) < 5);
  // All of a seed's 53 bits count.
  assert.notEqual(draw(one, 2 ** 53 - 1, 0), draw(one, 2 ** 52 - 1, 0));
  one.free();
  other.free();
});

Deno.test("Sampler.logprobs() equals f64 log-softmax, best first", () => {
  const seed = 33;
  const random = randomSource(seed);
  for (const [size, count] of [[3, 50], [200, 200], [4096, 40], [163_840, 3]] as const) {
    const sampler = new Sampler(size);
    for (let i = 0; i < count; i++) {
      const row = randomRow(random, size);
      const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
      const logSum = max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
      const id = Math.floor(random() * size);
      const topCount = pick(random, [0, 1, 5, 20, size + 1]);
      const { logprob, top } = sampler.logprobs(row, id, topCount);
      const isNear = (found: number, logit: number) =>
        found === logit - logSum || Math.abs(found - (logit - logSum)) < 2e-6;
      assert.ok(isNear(logprob, row[id]!), `seed ${seed}: ${logprob}, ${row[id]! - logSum}`);
      const order = Array.from(row.keys())
        .sort((a, b) => row[a] === row[b] ? a - b : row[b]! - row[a]!).slice(0, topCount);
      assert.deepEqual(top.map((entry) => entry.id), order);
      for (const entry of top) assert.ok(isNear(entry.logprob, row[entry.id]!));
    }
    sampler.free();
  }
});

Deno.test("Sampler refuses rows that are not finite and takes masked tokens", () => {
  const size = 300;
  const sampler = new Sampler(size);
  const parameters = { ...greedy, temperature: 1 };
  for (const id of [0, 3, 127, 128, 255, 299]) {
    for (const bad of [NaN, Infinity]) {
      const row = new Float32Array(size).fill(1);
      row[id] = bad;
      const message = new RegExp(
        `wanted finite logits, found ${bad === Infinity ? "inf" : bad} at ${id}`,
      );
      for (const p of [greedy, parameters]) assert.throws(() => sampler.sample(row, p, 0), message);
      assert.throws(() => sampler.logprobs(row, 0, 1), message);
    }
    const row = new Float32Array(size).fill(-Infinity);
    assert.throws(() => sampler.sample(row, parameters, 0), /found only -inf/);
    row[id] = -1e30;
    for (const filters of [{}, { topK: 5 }, { topP: 0.1 }, { minP: 1 }]) {
      assert.equal(sampler.sample(row, { ...parameters, ...filters }, 0), id);
    }
    assert.deepEqual(sampler.logprobs(row, id, 1), { logprob: 0, top: [{ id, logprob: 0 }] });
  }
  sampler.free();
});

Deno.test("Sampler refuses parameters out of range", () => {
  const sampler = new Sampler(4);
  const row = new Float32Array(4);
  const cases: [Partial<SampleParameters>, RegExp][] = [
    [{ temperature: -1 }, /wanted temperature >= 0, found -1/],
    [{ temperature: NaN }, /temperature/],
    [{ topK: 1.5 }, /topK: wanted an integer/],
    [{ topK: -1 }, /topK: wanted an integer/],
    [{ topP: -0.1 }, /wanted topP >= 0 and <= 1, found -0.1/],
    [{ typicalP: 1.1 }, /wanted typicalP >= 0 and <= 1, found 1.1/],
    [{ minP: 1.1 }, /wanted minP >= 0 and <= 1, found 1.1/],
    [{ seed: 2 ** 53 }, /seed: wanted an integer/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => sampler.sample(row, { ...greedy, ...change }, 0), message);
  }
  assert.throws(() => sampler.sample(row, greedy, -1), /position: wanted an integer/);
  assert.throws(() => sampler.sample(new Float32Array(5), greedy, 0), /wanted 4 values, found 5/);
  assert.throws(() => sampler.logprobs(row, 4, 0), /id: wanted an integer from 0 to below 4/);
  sampler.free();
});
