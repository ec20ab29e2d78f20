import assert from "node:assert/strict";
import { simulate, simulateMany } from "./simulation.ts";

const EVENTS = 1_000;

Deno.test("engine: 200 simulations of 1,000 events hold every invariant", async () => {
  await simulateMany(100_001, 200, EVENTS);
});

Deno.test("engine: the same seed gives the same digest", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    assert.deepEqual(await simulate(seed, EVENTS), await simulate(seed, EVENTS));
  }
});
