/** Compares the cpu device with the f64 model, block by block. */
import assert from "node:assert/strict";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { Capacity, ModelShape } from "../../wasm/cpu_types.ts";
import { normalizedError, worstError } from "../reference/compare.ts";
import { decodeF16, encodeF16 } from "../reference/formats.ts";
import { referenceForward, referenceZeroState } from "../reference/model.ts";
import { type RandomTensors, weightSource } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { loadDevice, runStep } from "./cpu_harness.ts";

export const seed = 20261123;
/** Not in order, and not from 0. */
export const pages = Uint32Array.of(9, 2, 30, 5, 17, 1, 8, 12);

/** Seeded token ids. */
export function tokensOf(shape: ModelShape, count: number): number[] {
  const random = randomSource(seed + 1);
  return Array.from({ length: count }, () => Math.floor(random() * shape.vocabularySize));
}

/** Compares every block over 45 tokens, in chunks of 41, 1 and 3, with the f64 model. */
export async function compareModel(
  shape: ModelShape,
  tensors: RandomTensors,
  variant: CpuVariant,
  capacity: Capacity,
  bound: number,
): Promise<void> {
  const weight = weightSource(tensors);
  const device = await loadDevice(shape, tensors, variant, capacity);
  const state = referenceZeroState(shape);
  const store = capacity.latentFormat === "f16"
    ? (value: number) => decodeF16(encodeF16(Math.fround(value)))
    : (value: number) => value;
  const tokens = tokensOf(shape, 45);
  for (const [start, end] of [[0, 41], [41, 42], [42, 45]] as const) {
    const chunk = tokens.slice(start, end);
    const wanted = referenceForward(shape, weight, chunk, state, store);
    let block = 0;
    const logits = await runStep(
      device,
      shape,
      [{ slot: 1, past: start, tokens: chunk, pages }],
      async (name) => {
        const trace = wanted.blocks[block++]!;
        assert.equal(name, trace.name);
        const found = await device.readResidual();
        const error = normalizedError(found, trace.residual);
        assert.ok(error <= bound, `${name} at ${start}: normalised error ${error}`);
        const worst = worstError(found, trace.residual);
        assert.ok(worst <= Math.sqrt(bound) * 20, `${name} at ${start}: worst ${worst}`);
        if (trace.experts === undefined) return;
        const routing = await device.readRouting();
        assert.deepEqual(routing.experts, trace.experts);
        assert.ok(normalizedError(routing.weights, trace.weights!) <= bound);
      },
    );
    const error = normalizedError(logits, wanted.logits);
    assert.ok(error <= bound, `logits at ${start}: normalised error ${error}`);
  }
  for (const [layer, kind] of shape.layers.entries()) {
    if (kind.mixer === "mla") {
      const found = await device.readLatents(layer, pages, tokens.length);
      assert.ok(normalizedError(found, state.latents[layer]!) <= bound, `latents of ${layer}`);
      continue;
    }
    const found = await device.readState(layer, 1);
    const wanted = state.kda[layer]!;
    assert.ok(normalizedError(found.recurrent, wanted.recurrent) <= bound, `state of ${layer}`);
    assert.ok(normalizedError(found.convolution, wanted.convolution) <= bound, `tail of ${layer}`);
  }
  device.destroy();
}
