import assert from "node:assert/strict";
import { pageBytes, planCapacity, slotBytes } from "../../runtime/engine/capacity.ts";
import { DeviceError } from "../../runtime/errors.ts";
import type { ModelShape } from "../../runtime/model/device.ts";

/** The 48B model: 20 KDA and 7 MLA layers. */
const SHAPE = {
  vocabularySize: 163_840,
  layers: Array.from({ length: 27 }, (_, layer) => ({
    mixer: layer % 4 === 3 || layer === 26 ? "mla" : "kda",
    feedForward: layer === 0 ? "dense" : "moe",
  })),
  kda: { headCount: 32, keyDim: 128, valueDim: 128, convolutionTaps: 4 },
  mla: { headCount: 32, latentDim: 512, nopeDim: 128, sharedKeyDim: 64, valueDim: 128 },
} as unknown as ModelShape;

const OPTIONS = {
  slots: 8,
  contextTokens: 131_072,
  latentFormat: "f16",
  memoryBytes: undefined,
  weightBytes: 30e9,
  bufferBytesMax: 2 ** 31 - 4,
  pieceTokens: 16,
  stepRows: 128,
} as const;

Deno.test("slotBytes and pageBytes are what the published model needs", () => {
  // 20 x (32 x 128 x 128 + 3 x 3 x 4,096) x 4 bytes = 42.8 MiB; 7 x 576 x 2 bytes a token.
  assert.equal(slotBytes(SHAPE), 20 * 4 * (32 * 128 * 128 + 3 * 3 * 4_096));
  assert.equal(pageBytes(SHAPE, "f16"), 64 * 8_064);
  assert.equal(pageBytes(SHAPE, "f32"), 2 * pageBytes(SHAPE, "f16"));
});

Deno.test("planCapacity without a budget holds one whole context and some of the others", () => {
  const capacity = planCapacity(SHAPE, OPTIONS);
  assert.equal(capacity.slots, 8);
  assert.equal(capacity.pagesPerSequence, 2_048);
  assert.equal(capacity.pages, 2_048 + 7 * 64 + 8);
  assert.ok(capacity.rows >= 8 + 16 && capacity.logitRows >= 8 + 16);
});

Deno.test("planCapacity turns what a budget leaves into pages, and refuses too small ones", () => {
  const { pages } = planCapacity(SHAPE, { ...OPTIONS, memoryBytes: 40e9 });
  const used = 30e9 + 8 * slotBytes(SHAPE) + pages * pageBytes(SHAPE, "f16");
  assert.ok(used <= 36e9 && used > 36e9 - pageBytes(SHAPE, "f16"));
  const most = planCapacity(SHAPE, { ...OPTIONS, memoryBytes: 400e9 });
  assert.equal(most.pages, 8 * 2_048, "no more than all slots can use");
  const cut = planCapacity(SHAPE, { ...OPTIONS, memoryBytes: 400e9, bufferBytesMax: 256e6 });
  assert.equal(cut.pages, Math.floor(256e6 / (64 * 576 * 2)), "no more than a buffer holds");
  const refused = (memoryBytes: number) => () => planCapacity(SHAPE, { ...OPTIONS, memoryBytes });
  assert.throws(refused(33e9), (error) => {
    assert.ok(error instanceof DeviceError);
    const [, wanted] = /wanted at least (\d+) bytes .* found --memory 33000000000/
      .exec(error.message) ?? [];
    assert.equal(planCapacity(SHAPE, { ...OPTIONS, memoryBytes: Number(wanted) }).pages, 2_048);
    assert.throws(refused(Number(wanted) - 1e6), DeviceError);
    return true;
  });
});
