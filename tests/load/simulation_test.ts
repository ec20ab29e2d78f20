/** The long form of tests/sim: seeds that no run of the short one has seen. */
import { simulateMany } from "../sim/simulation.ts";

Deno.test("engine: 10,000 simulations of 1,000 events hold every invariant", async () => {
  await simulateMany(1, 10_000, 1_000);
});
