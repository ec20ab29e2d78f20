import assert from "node:assert/strict";
import { simulate, type SimulationResult } from "./simulation.ts";

const SEEDS = Number(Deno.env.get("KEDGE_SIM_SEEDS") ?? 10_000);
const EVENTS = 1_000;

Deno.test(`engine: ${SEEDS} simulations of ${EVENTS} events hold every invariant`, async () => {
  const sum = { finished: 0, cancelled: 0, failed: 0, preemptions: 0 };
  const began = performance.now();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { finished, cancelled, failed, preemptions } = await simulate(seed, EVENTS);
    sum.finished += finished;
    sum.cancelled += cancelled;
    sum.failed += failed;
    sum.preemptions += preemptions;
  }
  const milliseconds = (performance.now() - began) / SEEDS;
  console.log(`${JSON.stringify(sum)}, ${milliseconds.toFixed(1)} ms a seed`);
  for (const count of Object.values(sum)) assert.ok(count > SEEDS / 10);
});

Deno.test("engine: the same seed gives the same digest", async () => {
  const run = async (seed: number): Promise<SimulationResult> => await simulate(seed, EVENTS);
  for (let seed = 1; seed <= 20; seed++) assert.deepEqual(await run(seed), await run(seed));
});
