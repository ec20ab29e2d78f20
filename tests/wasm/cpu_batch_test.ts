/** Results that must be equal to the last bit whatever shares the step. */
import assert from "node:assert/strict";
import type { CpuDevice } from "../../wasm/cpu.ts";
import type { ModelShape } from "../../wasm/cpu_types.ts";
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
} from "./cpu_harness.ts";
import { variants } from "./cpu_harness.ts";

const seed = 42;
const count = 61;

/** Logits of all tokens of one sequence in a fresh slot, cut into chunks. */
async function runChunks(
  device: CpuDevice,
  shape: ModelShape,
  tokens: readonly number[],
  chunk: number,
  slot: number,
  pages: Uint32Array,
): Promise<Float32Array> {
  device.zeroSlot(slot);
  const logits = new Float32Array(tokens.length * shape.vocabularySize);
  for (let past = 0; past < tokens.length; past += chunk) {
    const part = { slot, past, tokens: tokens.slice(past, past + chunk), pages };
    logits.set(await runStep(device, shape, [part]), past * shape.vocabularySize);
  }
  return logits;
}

const pagesOf = (first: number) => Uint32Array.from({ length: 9 }, (_, i) => (first + i * 5) % 32);

for (const variant of variants) {
  for (const [name, shape] of [["odd", oddShape], ["prime", primeShape]] as const) {
    for (const format of ["bf16", "fp8", "q8", "q4"] as const) {
      const label = `(${variant}, ${name} shape, ${format}, seed ${seed})`;

      Deno.test(`CpuDevice ${label} gives the same bits for every chunking`, async () => {
        const tensors = randomTensors(shape, { format }, randomSource(seed), 12);
        const device = await loadDevice(shape, tensors, variant);
        const tokens = tokensOf(shape, count);
        const whole = await runChunks(device, shape, tokens, count, 0, pagesOf(0));
        const wantedState = await device.readState(0, 0);
        assert.ok(whole.every(Number.isFinite));
        for (const chunk of [1, 7, 32]) {
          // Another slot, used before and zeroed, and other pages.
          const slot = chunk % 4;
          const found = await runChunks(device, shape, tokens, chunk, slot, pagesOf(chunk));
          assert.deepEqual(found, whole, `chunks of ${chunk}`);
          assert.deepEqual(await device.readState(0, slot), wantedState);
        }
        device.destroy();
      });

      Deno.test(`CpuDevice ${label} gives the same bits alone and in a ragged batch`, async () => {
        const tensors = randomTensors(shape, { format }, randomSource(seed), 12);
        const device = await loadDevice(shape, tensors, variant);
        const tokens = tokensOf(shape, count);
        const lengths = [30, 1, 17, 13];
        const alone: Float32Array[] = [];
        const parts: Part[] = [];
        let start = 0;
        for (const [slot, length] of lengths.entries()) {
          const own = tokens.slice(start, start + length);
          const pages = Uint32Array.from({ length: 5 }, (_, i) => (slot + i * 4) % 32);
          alone.push(await runChunks(device, shape, own, length, slot, pages));
          parts.push({ slot, past: 0, tokens: own, pages });
          start += length;
        }
        for (const slot of lengths.keys()) device.zeroSlot(slot);
        const together = await runStep(device, shape, parts);
        let row = 0;
        for (const [slot, length] of lengths.entries()) {
          const from = row * shape.vocabularySize;
          const found = together.slice(from, from + length * shape.vocabularySize);
          assert.deepEqual(found, alone[slot], `sequence in slot ${slot}`);
          row += length;
        }
        device.destroy();
      });
    }
  }

  Deno.test(`CpuDevice (${variant}) gives the same bits for every size of page`, async () => {
    const tensors = randomTensors(oddShape, { format: "bf16" }, randomSource(seed));
    const tokens = tokensOf(oddShape, count);
    const results: Float32Array[] = [];
    for (const pageTokens of [1, 16, 61]) {
      const capacity = { ...smallCapacity, pages: 80, pageTokens, pagesPerSequence: 80 };
      const device = await loadDevice(oddShape, tensors, variant, {
        ...capacity,
        latentFormat: "f16",
      });
      const pages = Uint32Array.from({ length: 61 }, (_, i) => 79 - i);
      results.push(await runChunks(device, oddShape, tokens, 20, 2, pages));
      device.destroy();
    }
    assert.deepEqual(results[1], results[0]);
    assert.deepEqual(results[2], results[0]);
  });

  Deno.test(`CpuDevice (${variant}) keeps a broken sequence to itself`, async () => {
    const tensors = randomTensors(oddShape, { format: "f32" }, randomSource(seed));
    const embed = tensors.get("embed")![0]!;
    const broken = new DataView(embed.bytes.buffer);
    for (let i = 0; i < oddShape.hiddenSize; i++) broken.setFloat32(i * 4, NaN, true);
    const device = await loadDevice(oddShape, tensors, variant);
    const good = { slot: 1, past: 0, tokens: [5, 6, 7], pages: Uint32Array.of(3) };
    const alone = await runStep(device, oddShape, [good]);
    device.zeroSlot(1);
    const bad = { slot: 0, past: 0, tokens: [0, 4], pages: Uint32Array.of(1) };
    const logits = await runStep(device, oddShape, [bad, good]);
    const flags = (await device.finish().result()).nonFinite;
    assert.deepEqual([...flags], [1, 1, 0, 0, 0]);
    assert.deepEqual(logits.slice(2 * oddShape.vocabularySize), alone);
    // Nothing of it is left in the memory that the next step uses, nor in a zeroed slot.
    device.zeroSlot(0);
    const again = await runStep(device, oddShape, [{ ...good, slot: 0 }]);
    assert.deepEqual(again, alone);
    device.destroy();
  });
}
