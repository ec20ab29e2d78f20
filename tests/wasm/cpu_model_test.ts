import assert from "node:assert/strict";
import type { Device } from "../../runtime/model/device.ts";
import { CpuDevice } from "../../wasm/cpu.ts";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { Capacity, ModelShape } from "../../wasm/cpu_types.ts";
import { normalizedError, worstError } from "../reference/compare.ts";
import { decodeF16, encodeF16 } from "../reference/formats.ts";
import { referenceForward, referenceZeroState } from "../reference/model.ts";
import { type RandomStorage, randomTensors, weightSource } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import {
  loadDevice,
  oddShape,
  primeShape,
  runStep,
  smallCapacity,
  variants,
} from "./cpu_harness.ts";

const seed = 20261123;
const pages = Uint32Array.of(9, 2, 30, 5, 17, 1, 8, 12);

function tokensOf(shape: ModelShape, count: number): number[] {
  const random = randomSource(seed + 1);
  return Array.from({ length: count }, () => Math.floor(random() * shape.vocabularySize));
}

/** Compares every block of one sequence, in chunks, with the f64 model. */
async function compareModel(
  shape: ModelShape,
  storage: RandomStorage,
  variant: CpuVariant,
  capacity: Capacity,
  bound: number,
): Promise<void> {
  const tensors = randomTensors(shape, storage, randomSource(seed));
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

const storages: Record<string, RandomStorage> = {
  "f32": { format: "f32" },
  "f16": { format: "f16" },
  "bf16": { format: "bf16" },
  "fp8 with 128 x 128 blocks": { format: "fp8", rowsPerScale: 128, columnsPerScale: 128 },
  "fp8 with 16 x 32 blocks": { format: "fp8", rowsPerScale: 16, columnsPerScale: 32 },
  "fp8 with 5 x 7 blocks": { format: "fp8", rowsPerScale: 5, columnsPerScale: 7 },
  "fp8 with a scale per row": { format: "fp8", rowsPerScale: 1, columnsPerScale: 1 << 20 },
  "fp8 with one scale": { format: "fp8", rowsPerScale: 1 << 20, columnsPerScale: 1 << 20 },
};

Deno.test("CpuDevice satisfies the device seam", () => {
  // The assignment is the test: it compiles only while the types agree.
  const device: Device = new CpuDevice(oddShape);
  assert.equal(device.kind, "cpu");
  device.destroy();
});

for (const variant of variants) {
  for (const [name, storage] of Object.entries(storages)) {
    Deno.test(`CpuDevice (${variant}) equals the f64 model in ${name}, seed ${seed}`, async () => {
      await compareModel(oddShape, storage, variant, smallCapacity, 1e-10);
    });
  }

  for (const format of ["bf16", "fp8"] as const) {
    Deno.test(`CpuDevice (${variant}) equals the f64 model with prime sizes in ${format}`, async () => {
      await compareModel(primeShape, { format }, variant, smallCapacity, 1e-10);
    });
  }

  Deno.test(`CpuDevice (${variant}) equals the f64 model with f16 latents`, async () => {
    const capacity: Capacity = { ...smallCapacity, latentFormat: "f16" };
    // A latent near the middle of two f16 may be rounded to the other one.
    await compareModel(oddShape, { format: "bf16" }, variant, capacity, 1e-8);
  });
}
