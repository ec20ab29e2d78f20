import { equal } from "node:assert/strict";
import { COMPACT_JSON, JsonWriter } from "../../runtime/chat/json_writer.ts";
import { randomSource } from "../reference/random.ts";

const SEED = 20_261;
const TEXTS = ["", "a", '"\\\n', "é🙂", "\ud800", "__proto__", "10", "9"];

function randomValue(random: () => number, depth: number): unknown {
  const pick = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)]!;
  const kind = random();
  if (depth > 5 || kind < 0.2) return pick(TEXTS);
  if (kind < 0.4) return pick([0, -0, 1.5, 1e300, -7, NaN]);
  if (kind < 0.5) return pick([true, false, null]);
  const length = Math.floor(random() * 5);
  if (kind < 0.75) return Array.from({ length }, () => randomValue(random, depth + 1));
  const pairs = Array.from({ length }, () => [pick(TEXTS), randomValue(random, depth + 1)]);
  return Object.fromEntries(pairs);
}

Deno.test(`JSON writer: as JSON.stringify, whatever the steps, seed ${SEED}`, () => {
  const random = randomSource(SEED);
  for (let round = 0; round < 3000; round++) {
    const value = randomValue(random, 0);
    const levels = [0, 1, 3, Infinity][round % 4]!;
    const writer = new JsonWriter(value, COMPACT_JSON, levels);
    let text = "";
    while (!writer.step(1 + round % 7)) if (round % 2 === 0) text += writer.take();
    equal(text + writer.take(), JSON.stringify(value));
  }
});

Deno.test("JSON writer: fields without a value, lists with one, ids", () => {
  for (const levels of [0, 1, Infinity]) {
    const writer = new JsonWriter({ a: undefined, b: [undefined, 1] }, COMPACT_JSON, levels);
    writer.step(Infinity);
    equal(writer.take(), '{"b":[null,1]}');
  }
  const writer = new JsonWriter(Uint32Array.of(1, 2));
  writer.step(Infinity);
  equal(writer.take(), "[1,2]");
});
