/** Helper threads: the same bits, and Workers that end. */
import assert from "node:assert/strict";
import type { CpuDevice } from "../../wasm/cpu.ts";
import { randomTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { tokensOf } from "./cpu_compare.ts";
import {
  loadDevice,
  oddShape,
  type Part,
  primeShape,
  runStep,
  smallCapacity,
  variants,
} from "./cpu_harness.ts";

const seed = 7;
const pagesOf = (first: number) => Uint32Array.from({ length: 8 }, (_, i) => (first + i * 4) % 32);

/** Logits of steps that prefill, decode and do both. */
async function run(device: CpuDevice, shape: typeof oddShape): Promise<Float32Array[]> {
  const tokens = tokensOf(shape, 90);
  const part = (slot: number, past: number, from: number, to: number): Part => ({
    slot,
    past,
    tokens: tokens.slice(from, to),
    pages: pagesOf(slot),
  });
  const steps = [
    [part(0, 0, 0, 40)],
    [part(0, 40, 40, 41), part(1, 0, 41, 71), part(2, 0, 71, 72)],
    [part(0, 41, 72, 73), part(1, 30, 73, 74), part(2, 1, 74, 75)],
    [part(1, 31, 75, 76)],
  ];
  const logits = [];
  for (const parts of steps) logits.push(await runStep(device, shape, parts));
  return logits;
}

for (const variant of variants) {
  for (const [name, shape] of [["odd", oddShape], ["prime", primeShape]] as const) {
    for (const format of ["fp8", "q8", "q4"] as const) {
      const label = `CpuDevice (${variant}, ${name}, ${format})`;
      Deno.test(`${label} gives the same bits on 1, 2 and 3 threads`, async () => {
        const tensors = randomTensors(shape, { format }, randomSource(seed), 12);
        const alone = await loadDevice(shape, tensors, variant);
        const wanted = await run(alone, shape);
        alone.destroy();
        for (const threads of [2, 3]) {
          const device = await loadDevice(shape, tensors, variant, smallCapacity, threads);
          for (let repeat = 0; repeat < 10; repeat++) {
            for (const slot of [0, 1, 2]) device.zeroSlot(slot);
            const found = await run(device, shape);
            found.forEach((logits, step) => assert.deepEqual(logits, wanted[step], `step ${step}`));
          }
          device.destroy();
        }
      });
    }
  }
}

Deno.test("CpuDevice.destroy() ends the helpers, also of a device that slept", async () => {
  const tensors = randomTensors(primeShape, { format: "q8" }, randomSource(seed), 12);
  const threads = () => [...Deno.readDirSync("/proc/self/task")].length;
  const before = threads();
  for (let repeat = 0; repeat < 5; repeat++) {
    const device = await loadDevice(primeShape, tensors, variants[1]!, smallCapacity, 3);
    await run(device, primeShape);
    await new Promise((resolve) => setTimeout(resolve, repeat * 100));
    await run(device, primeShape);
    device.destroy();
  }
  const end = performance.now() + 5_000;
  while (threads() > before && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(threads() <= before, `${threads()} threads, ${before} before`);
});
