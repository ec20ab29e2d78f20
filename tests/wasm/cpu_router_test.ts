/** Routing by worked examples, and the counters of expert use. */
import assert from "node:assert/strict";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { ModelShape } from "../../wasm/cpu_types.ts";
import { quantize } from "../reference/formats.ts";
import { randomTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { tokensOf } from "./cpu_compare.ts";
import { beginStep, loadDevice, oddShape, runStep, variants } from "./cpu_harness.ts";

const hidden = 16;

function routerShape(expertCount: number, expertsPerToken: number): ModelShape {
  return {
    ...oddShape,
    vocabularySize: 4,
    hiddenSize: hidden,
    layers: [{ mixer: "kda", feedForward: "moe" }],
    moe: { ...oddShape.moe, expertCount, expertsPerToken, routedScale: 2.446, renormalize: true },
  };
}

/** A device whose router gives `logits` for every token: the normed input is all ones. */
async function routerDevice(
  logits: readonly number[],
  bias: readonly number[],
  top: number,
  variant: CpuVariant,
) {
  const shape = routerShape(logits.length, top);
  const tensors = randomTensors(shape, { format: "f32" }, randomSource(5));
  const set = (key: string, rows: number, values: ArrayLike<number>) => {
    const columns = values.length / rows;
    tensors.set(key, [quantize(Float32Array.from(values), rows, columns, "f32")]);
  };
  // So large that the norm's epsilon is lost.
  set("embed", 4, Array(4 * hidden).fill(2 ** 20));
  set("0.ffn_norm", 1, Array(hidden).fill(1));
  set("0.moe.router", logits.length, logits.flatMap((value) => Array(hidden).fill(value / hidden)));
  set("0.moe.router_bias", 1, bias);
  const device = await loadDevice(shape, tensors, variant);
  beginStep(device, [{ slot: 0, past: 0, tokens: [0, 1, 2], pages: Uint32Array.of(0) }]);
  device.embed();
  device.moe(0);
  return device;
}

for (const variant of variants) {
  Deno.test(`CpuDevice.moe() (${variant}) selects with bias, weighs without`, async () => {
    const logits = [0.2, -0.4, 1, 0.9, -1, 0.5];
    const device = await routerDevice(logits, [0, 0.5, -0.3, 0, 0.1, 0], 2, variant);
    const { experts, weights } = await device.readRouting();
    assert.deepEqual([...experts], [1, 3, 1, 3, 1, 3]);
    weights.forEach((weight, i) => {
      const wanted = [0.8825349804, 1.5634650196][i % 2]!;
      assert.ok(Math.abs(weight - wanted) < 1e-6, `${weight}, wanted ${wanted}`);
    });
    assert.deepEqual([...await device.takeExpertUse()], [0, 3, 0, 3, 0, 0]);
    assert.deepEqual([...await device.takeExpertUse()], [0, 0, 0, 0, 0, 0]);
    device.destroy();
  });

  Deno.test(`CpuDevice.moe() (${variant}) breaks ties towards the lower index`, async () => {
    const device = await routerDevice([0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0], 4, variant);
    const { experts } = await device.readRouting();
    assert.deepEqual([...experts.subarray(0, 4)], [1, 2, 0, 3]);
    device.destroy();
  });

  Deno.test(`CpuDevice.moe() (${variant}) chooses distinct experts among NaN`, async () => {
    const device = await routerDevice([NaN, NaN, 1, NaN, NaN], [0, 0, 0, 0, 0], 3, variant);
    const { experts } = await device.readRouting();
    // One NaN in an f32 row of weights makes its own score NaN only.
    assert.deepEqual([...experts.subarray(0, 3)], [2, 0, 1]);
    device.destroy();
  });

  Deno.test(`CpuDevice.takeExpertUse() (${variant}) counts every layer's choices`, async () => {
    const tensors = randomTensors(oddShape, { format: "bf16" }, randomSource(8));
    const device = await loadDevice(oddShape, tensors, variant);
    const wanted = new Uint32Array(2 * oddShape.moe.expertCount);
    const pages = Uint32Array.of(0, 1, 2, 3);
    const part = { slot: 0, past: 0, tokens: tokensOf(oddShape, 25), pages };
    await runStep(device, oddShape, [part], async (name) => {
      if (!name.endsWith(".moe")) return;
      const base = name === "1.moe" ? 0 : oddShape.moe.expertCount;
      for (const expert of (await device.readRouting()).experts) {
        wanted[base + expert] = wanted[base + expert]! + 1;
      }
    });
    assert.deepEqual(await device.takeExpertUse(), wanted);
    device.destroy();
  });
}
