/** Weights without a checkpoint: complete, well scaled, routed as stated; and steps over them. */
import assert from "node:assert/strict";
import { benchDevice } from "../../runtime/cli/bench_device.ts";
import { fullAttention, readShape, syntheticModel } from "../../runtime/cli/bench_synthetic.ts";
import { UsageError } from "../../runtime/errors.ts";
import { parseModelConfig } from "../../runtime/model/config.ts";
import type { ModelShape, StepPlan } from "../../runtime/model/device.ts";
import { observeStep } from "../../runtime/model/kimi_linear.ts";
import { WEIGHT_CHOICES } from "../../runtime/weights/resident.ts";
import { loadSynthetic } from "../../runtime/weights/synthetic.ts";
import { CpuDevice } from "../../wasm/cpu.ts";
import { dequantizeGroups } from "../reference/formats.ts";
import { randomSource } from "../reference/random.ts";
import { plainRows } from "../tools/logit_rows.ts";
import { GROUPED_SIZES, smallConfig } from "../tools/checkpoint_writer.ts";
import { RecordingDevice } from "../tools/recording_device.ts";

function shapeOf(change: Record<string, unknown> = {}): ModelShape {
  return parseModelConfig({ ...smallConfig(), ...change }, "config.json").shape;
}

/** 32 experts, 4 a token, wide enough for statistics. */
const ROUTED = {
  ...GROUPED_SIZES,
  num_hidden_layers: 8,
  num_experts: 32,
  num_experts_per_token: 4,
  linear_attn_config: {
    kda_layers: [1, 2, 3, 5, 6, 7],
    full_attn_layers: [4, 8],
    head_dim: 16,
    num_heads: 2,
    short_conv_kernel_size: 4,
  },
};

for (const choice of WEIGHT_CHOICES) {
  Deno.test(`loadSynthetic() fills every byte of ${choice}, the same for a seed`, () => {
    for (const change of [{}, GROUPED_SIZES]) {
      const [first, again] = [1, 1].map((seed) => {
        const device = new RecordingDevice();
        loadSynthetic(shapeOf(change), choice, { seed, skew: 0.5 }, device);
        device.checkComplete();
        return device;
      });
      assert.deepEqual(first!.weights, again!.weights);
    }
  });
}

Deno.test("matrices have a deviation of 1 / sqrt(columns), padding is zero", () => {
  for (const choice of ["q4", "q8"] as const) {
    const device = new RecordingDevice();
    loadSynthetic(shapeOf({ hidden_size: 1000 }), choice, { seed: 1, skew: 0 }, device);
    const { spec, matrices, groupScales } = device.weights.get("0.kda.q")!;
    const { rows, columns } = spec;
    const scales = new Uint16Array(groupScales[0]!.slice().buffer);
    const matrix = { format: choice, rows, columns, bytes: matrices[0]!, scales };
    const values = dequantizeGroups(matrix);
    const square = values.reduce((sum, v) => sum + v * v, 0) / values.length;
    assert.ok(Math.abs(square * columns - 1) < 0.15, `${choice}: ${square * columns}`);
    const padded = dequantizeGroups({ ...matrix, columns: 1024 });
    for (let row = 0; row < rows; row++) {
      assert.ok(padded.subarray(row * 1024 + columns, (row + 1) * 1024).every((v) => v === 0));
    }
  }
});

/** Residuals after each layer and use of experts over random tokens on the cpu device. */
async function runTokens(skew: number) {
  const shape = shapeOf(ROUTED);
  const device = new CpuDevice(shape);
  try {
    loadSynthetic(shape, "bf16", { seed: 5, skew }, device);
    const rows = 256;
    await device.configure({
      slots: 1,
      pages: 4,
      pageTokens: 64,
      rows,
      logitRows: rows,
      sequences: 1,
      pagesPerSequence: 4,
      logitEdits: 1,
      latentFormat: "f16",
    });
    const random = randomSource(3);
    const plan: StepPlan = {
      tokens: Uint32Array.from({ length: rows }, () => Math.floor(random() * 256)),
      feeds: null,
      sequences: [{
        slot: 0,
        rowStart: 0,
        rowCount: rows,
        past: 0,
        pages: Uint32Array.of(0, 1, 2, 3),
      }],
      logits: plainRows([0, rows - 1]),
    };
    const sizes: number[] = [];
    const result = await observeStep(device, shape, plan, async () => {
      const residual = await device.readResidual();
      sizes.push(Math.sqrt(residual.reduce((sum, x) => sum + x * x, 0) / residual.length));
    });
    assert.deepEqual([...result.nonFinite], [0, 0]);
    return { sizes, use: await device.takeExpertUse(), logits: await result.readRow(1) };
  } finally {
    device.destroy();
  }
}

Deno.test("activations stay well scaled, and the experts' shares follow the skew", async () => {
  const most = async (skew: number) => {
    const { sizes, use, logits } = await runTokens(skew);
    assert.ok(sizes.every((size) => size > 0.5 && size < 4), sizes.join(" "));
    const spread = Math.sqrt(logits.reduce((sum, x) => sum + x * x, 0) / logits.length);
    assert.ok(spread > 1 && spread < 9, `logits of ${spread}`);
    // Largest share over the mean, the mean of the layers.
    let sum = 0;
    for (let layer = 0; layer < 7; layer++) {
      sum += Math.max(...use.subarray(32 * layer, 32 * (layer + 1))) / (256 * 4 / 32);
    }
    return sum / 7;
  };
  // exp(n / 2) of 32 draws has its largest at 2.3 to 3.3 times the mean.
  const [even, skewed] = [await most(0), await most(0.5)];
  assert.ok(even < 2.2, `${even}`);
  assert.ok(skewed > even + 0.4 && skewed < 5, `${skewed} after ${even}`);
});

Deno.test("benchDevice() measures what fits and leaves out what does not", async () => {
  const shape = shapeOf(ROUTED);
  for (const variant of [shape, fullAttention(shape)]) {
    const plan = { contexts: [0, 300], batches: [1, 3], prefills: [200], seconds: 0 };
    const all = await benchDevice("cpu", syntheticModel(variant, "bf16"), {
      ...plan,
      poolBytes: 1e9,
    });
    assert.deepEqual(all.decode.map(({ context, batch }) => [context, batch]), [
      [0, 1],
      [0, 3],
      [300, 1],
      [300, 3],
    ]);
    assert.ok(all.decode.every((speed) => speed.tokensPerSecond! > 0 && speed.stepMs! > 0));
    assert.ok(all.prefill[0]!.tokensPerSecond! > 0 && all.weightBytes > 0);
    const poolBytes = all.decode[1]!.cacheBytes;
    const some = await benchDevice("cpu", syntheticModel(variant, "bf16"), { ...plan, poolBytes });
    const fits = some.decode.map((speed) => speed.tokensPerSecond !== null);
    assert.deepEqual(fits.slice(0, 2), [true, true]);
    assert.equal(fits[3], false);
  }
});

Deno.test("the 48B shape by name is the published one", () => {
  const { layers, moe, hiddenSize } = readShape("--synthetic", "48b");
  assert.deepEqual([layers.length, moe.expertCount, hiddenSize], [27, 256, 2304]);
  const mixers = layers.flatMap(({ mixer }, index) => mixer === "mla" ? [index] : []);
  assert.deepEqual(mixers, [3, 7, 11, 15, 19, 23, 26]);
  assert.throws(() => readShape("--synthetic", "49b"), UsageError);
});
