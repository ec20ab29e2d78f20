import assert from "node:assert/strict";
import type { Device } from "../../runtime/model/device.ts";
import { CpuDevice } from "../../wasm/cpu.ts";
import type { Capacity } from "../../wasm/cpu_types.ts";
import { quantize } from "../reference/formats.ts";
import { type RandomStorage, randomTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { compareModel, seed } from "./cpu_compare.ts";
import { oddShape, primeShape, smallCapacity, variants } from "./cpu_harness.ts";

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

/**
 * Weights with which no activation is so near the middle of two integers that f32 and f64 round it
 * apart early on: one such step of 127 grows from layer to layer.
 */
const calmSeed = 1;

Deno.test("CpuDevice satisfies the device seam", () => {
  // The assignment is the test: it compiles only while the types agree.
  const device: Device = new CpuDevice(oddShape);
  assert.equal(device.kind, "cpu");
  device.destroy();
});

for (const variant of variants) {
  for (const [name, storage] of Object.entries(storages)) {
    Deno.test(`CpuDevice (${variant}) equals the f64 model in ${name}, seed ${seed}`, async () => {
      const tensors = randomTensors(oddShape, storage, randomSource(seed));
      await compareModel(oddShape, tensors, variant, smallCapacity, 1e-10);
    });
  }

  for (const format of ["bf16", "fp8"] as const) {
    Deno.test(`CpuDevice (${variant}) equals the f64 model, prime sizes in ${format}`, async () => {
      const tensors = randomTensors(primeShape, { format }, randomSource(seed), 6);
      await compareModel(primeShape, tensors, variant, smallCapacity, 1e-10);
    });
  }

  for (const [name, shape] of [["odd", oddShape], ["prime", primeShape]] as const) {
    for (const format of ["q8", "q4"] as const) {
      const label = `CpuDevice (${variant}) equals the f64 model, ${name} sizes in ${format}`;
      Deno.test(label, async () => {
        const tensors = randomTensors(shape, { format }, randomSource(calmSeed), 12);
        await compareModel(shape, tensors, variant, smallCapacity, 1e-5);
      });
    }
  }

  Deno.test(`CpuDevice (${variant}) equals the f64 model with f16 latents`, async () => {
    const capacity: Capacity = { ...smallCapacity, latentFormat: "f16" };
    // A latent near the middle of two f16 may be rounded to the other one.
    const tensors = randomTensors(oddShape, { format: "bf16" }, randomSource(seed));
    await compareModel(oddShape, tensors, variant, capacity, 1e-8);
  });

  Deno.test(`CpuDevice (${variant}) keeps KDA exact where gates are extreme`, async () => {
    const tensors = randomTensors(oddShape, { format: "f32" }, randomSource(seed));
    const { headCount, keyDim } = oddShape.kda;
    // Retention from e^-6000 to 1 - 1e-8, and softplus on both sides of its shortcut at 20.
    const aLog = Float32Array.of(5.3, 0, -9);
    const bias = Float32Array.from({ length: headCount * keyDim }, (_, i) => (i % 13) * 5 - 30);
    for (const layer of [0, 2]) {
      tensors.set(`${layer}.kda.a_log`, [quantize(aLog, 1, aLog.length, "f32")]);
      tensors.set(`${layer}.kda.dt_bias`, [quantize(bias, 1, bias.length, "f32")]);
    }
    await compareModel(oddShape, tensors, variant, smallCapacity, 1e-10);
  });
}
