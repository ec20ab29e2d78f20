/**
 * The fused kernels for sequences with one row (decode_embed, decode_prepare, decode_kda_in,
 * decode_kda_step, decode_out, decode_mla_in, decode_absorb, decode_attention, decode_values,
 * decode_up, decode_down, decode_head; of several rows decode_kda_gates, decode_kda_update,
 * decode_choose and decode_experts), block by block, against the reference in f64, which rounds
 * what q8 and q4 weights multiply, and against the generic kernels, which round alike and have
 * references of their own.
 */
import assert from "node:assert";
import { normalizedError } from "../reference/compare.ts";
import { referenceForward, referenceZeroState } from "../reference/model.ts";
import {
  blockTensors,
  groupTensors,
  randomTensors,
  weightSource,
} from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { loaded, planOf, randomModel, run, SHAPE, TEXT } from "./decode_driver.ts";

for (const format of ["q4", "q8"] as const) {
  Deno.test({
    name: `decode kernels agree with the reference in f64, ${format}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const tensors = groupTensors(randomModel(), format);
      const weight = weightSource(tensors);
      const device = await loaded(SHAPE, tensors);
      try {
        const state = referenceZeroState(SHAPE);
        const prompt = TEXT.slice(0, 20);
        referenceForward(SHAPE, weight, prompt, state);
        const errors: number[] = [];
        await run(device, SHAPE, [{ slot: 1, past: 0, tokens: prompt }]);
        for (let past = 20; past < TEXT.length; past++) {
          const tokens = [TEXT[past]!];
          const { residuals, logits } = await run(device, SHAPE, [{ slot: 1, past, tokens }]);
          const wanted = referenceForward(SHAPE, weight, tokens, state);
          residuals.forEach((found, block) => {
            const error = normalizedError(found, wanted.blocks[block + 1]!.residual);
            errors.push(error);
            assert.ok(error < 2e-3, `token ${past}, ${wanted.blocks[block + 1]!.name}: ${error}`);
          });
          assert.ok(normalizedError(logits[0]!, wanted.logits) < 2e-3, `token ${past}, logits`);
        }
        // A value at a rounding border falls to either side now and then; else f32 is exact enough.
        const median = errors.sort((a, b) => a - b)[errors.length >> 1]!;
        assert.ok(median < 1e-10, `median ${median}`);
      } finally {
        device.destroy();
      }
    },
  });
}

for (const format of ["q4", "q8"] as const) {
  Deno.test({
    name: `decode kernels agree with the generic ones, which round alike, ${format}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const device = await loaded(SHAPE, groupTensors(randomModel(), format));
      const hidden = SHAPE.hiddenSize;
      const errors: number[] = [];
      try {
        for (const slot of [0, 1]) {
          await run(device, SHAPE, [{ slot, past: 0, tokens: TEXT.slice(0, 20) }]);
        }
        for (let past = 20; past < TEXT.length; past += 2) {
          const [first, second] = [TEXT[past]!, TEXT[past + 1]!];
          await run(device, SHAPE, [{ slot: 1, past, tokens: [first] }]);
          const single = await run(device, SHAPE, [{ slot: 1, past: past + 1, tokens: [second] }]);
          const pair = await run(device, SHAPE, [{ slot: 0, past, tokens: [first, second] }]);
          single.residuals.forEach((found, block) => {
            errors.push(normalizedError(found, pair.residuals[block]!.subarray(hidden)));
          });
          errors.push(normalizedError(single.logits[0]!, pair.logits[0]!));
        }
      } finally {
        device.destroy();
      }
      // Sums in another order move a few activations across a rounding border.
      errors.sort((a, b) => a - b);
      const [median, worst] = [errors[errors.length >> 1]!, errors.at(-1)!];
      console.log(`normalised squared error: median ${median}, worst ${worst}`);
      assert.ok(median < 1e-4, `median ${median}`);
      assert.ok(worst < 1e-2, `worst ${worst}`);
    },
  });
}

/** Rows whose logits are wanted: in order, in another order, and some only. */
const ORDERS: readonly number[][] = [[0, 1, 2, 3, 4], [2, 0, 1, 4, 3], [2], [0, 1]];
const ONE_ORDER: readonly number[][] = [[2, 0]];

for (
  const [format, adapterClass, counts, orders] of [
    ["q4", "software", [2, 3, 5, 7], ORDERS],
    ["q8", "software", [2, 3, 5, 7], ORDERS],
    ["fp8", "software", [2, 3, 5, 7], ORDERS],
    ["q4", "integrated", [2, 5], ONE_ORDER],
    ["fp8", "integrated", [7], ONE_ORDER],
    ["q8", "discrete", [3, 5], ONE_ORDER],
  ] as const
) {
  Deno.test({
    name: `decode kernels give a row the same bits beside others, ${format}, ${adapterClass}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const tensors = format === "fp8"
        ? blockTensors(randomModel(), 32, 32, randomSource(77))
        : groupTensors(randomModel(), format);
      const device = await loaded(SHAPE, tensors, { adapterClass, changes: {} });
      const prompts = [0, 1, 2, 3, 4, 5, 6].map((slot) => ({
        slot,
        past: 0,
        tokens: TEXT.slice(slot, 16),
      }));
      const restart = async () => {
        for (let slot = 0; slot < 8; slot++) device.zeroSlot(slot);
        for (const part of prompts) await run(device, SHAPE, [part]);
        await device.takeExpertUse();
      };
      const singles = prompts.map(({ slot, tokens }) => ({
        slot,
        past: tokens.length,
        tokens: [5 + 3 * slot],
      }));
      try {
        await restart();
        const alone: Float32Array[] = [];
        for (const part of singles) alone.push((await run(device, SHAPE, [part])).logits[0]!);
        const use = await device.takeExpertUse();
        for (const count of counts) {
          await restart();
          const { logits } = await run(device, SHAPE, singles.slice(0, count));
          logits.forEach((found, row) => assert.deepEqual(found, alone[row], `row ${row}`));
        }
        if (counts.at(-1) === singles.length) {
          assert.deepEqual(await device.takeExpertUse(), use);
        }
        for (const wanted of orders) {
          await restart();
          const { logits } = await run(device, SHAPE, singles.slice(0, 5), wanted);
          wanted.forEach((part, index) =>
            assert.deepEqual(logits[index], alone[part], `${wanted}`)
          );
        }
        await restart();
        const newcomer = { slot: 7, past: 0, tokens: TEXT.slice(0, 7) };
        const mixed = [singles[0]!, newcomer, ...singles.slice(1, 5)];
        const { logits } = await run(device, SHAPE, mixed);
        [0, 2, 3, 4, 5].forEach((index, row) =>
          assert.deepEqual(logits[index], alone[row], `row ${row}`)
        );
      } finally {
        device.destroy();
      }
    },
  });
}

Deno.test({
  name: "decode kernels take tokens that the step before chose, beside prompts that do",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await loaded(SHAPE, groupTensors(randomModel(), "q4"));
    const prompts = [0, 1].map((slot) => ({ slot, past: 0, tokens: TEXT.slice(slot, 9) }));
    const best = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
    const after = async (feeds: Int32Array | null, known: (token: number) => number) => {
      for (const slot of [0, 1, 2]) device.zeroSlot(slot);
      const [first, second] = (await run(device, SHAPE, prompts)).logits.map(best);
      const parts = [
        { slot: 0, past: 9, tokens: [known(first!)] },
        { slot: 2, past: 0, tokens: [7, known(first!), 8] },
        { slot: 1, past: 8, tokens: [known(second!)] },
      ];
      return (await run(device, SHAPE, parts, [0, 1, 2], feeds)).logits;
    };
    try {
      const wanted = await after(null, (token) => token);
      assert.deepEqual(await after(Int32Array.of(0, -1, 0, -1, 1), () => 0), wanted);
    } finally {
      device.destroy();
    }
  },
});

Deno.test({
  name: "decode kernels count the use of a mixture's experts, not of dense layers",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await loaded(SHAPE, groupTensors(randomModel(), "q4"));
    const { expertCount, expertsPerToken } = SHAPE.moe;
    try {
      for (const [past, token] of TEXT.slice(0, 3).entries()) {
        await run(device, SHAPE, [{ slot: 0, past, tokens: [token] }]);
      }
      const use = await device.takeExpertUse();
      const sums = [0, 1].map((layer) =>
        use.slice(layer * expertCount, (layer + 1) * expertCount).reduce((a, b) => a + b)
      );
      assert.deepEqual(sums, [3 * expertsPerToken, 3 * expertsPerToken]);
    } finally {
      device.destroy();
    }
  },
});

Deno.test({
  name: "a token of 27 layers takes 154 dispatches, an MLA layer seven",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    // The published order of layers: every fourth and the last are MLA, the first is dense.
    const layers = Array.from({ length: 27 }, (_, layer) => ({
      mixer: layer % 4 === 3 || layer === 26 ? "mla" as const : "kda" as const,
      feedForward: layer === 0 ? "dense" as const : "moe" as const,
    }));
    const counts: number[] = [];
    for (const count of [27, 25]) {
      const shape = { ...SHAPE, layers: layers.slice(0, count) };
      const tensors = randomTensors(shape, { format: "bf16" }, randomSource(3), 32);
      const device = await loaded(shape, groupTensors(tensors, "q4"));
      try {
        device.begin(planOf([{ slot: 0, past: 0, tokens: [3] }]));
        device.embed();
        for (const [layer, { mixer, feedForward }] of shape.layers.entries()) {
          device[mixer](layer);
          device[feedForward](layer);
        }
        device.logits();
        await device.finish().result();
        counts.push(device.dispatchCount);
      } finally {
        device.destroy();
      }
    }
    const [all, without] = counts;
    assert.equal(all, 154);
    // The last two layers: one KDA, one MLA.
    assert.equal(all! - without!, 5 + 7);
  },
});
