/**
 * The fused kernels with fp8 weights: lib/fp8_rows.wgsl code by code, a model against the reference
 * in f64, which rounds nothing, and against the generic kernels, which round nothing either.
 */
import assert from "node:assert";
import { rowStorage } from "../../kernels/decode_shape.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { createHead } from "../../kernels/head.ts";
import { Matrix } from "../../kernels/matrix.ts";
import { Projections } from "../../kernels/projection.ts";
import { normalizedError } from "../reference/compare.ts";
import { decodeE4m3, dequantize, quantize, type StoredMatrix } from "../reference/formats.ts";
import { referenceForward, referenceZeroState } from "../reference/model.ts";
import { blockTensors, weightSource } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { loaded, planOf, randomModel, run, SHAPE, TEXT } from "./decode_driver.ts";
import { download, upload, withGpu } from "./harness.ts";
import { shapeOf } from "./model_shape.ts";

const CODES = 256;
const NAN_CODE = 0x7f;
const COLUMNS = 64;
/** Normalised squared error of f32 sums through three layers: 5e-6 of the values. */
const ERROR_MAX = 3e-11;
/** Of a token: embedding 1, KDA 3, MLA 5, feed-forward 2 a layer; logits 6. */
const DISPATCHES = 24;

/**
 * logits[column][row] = W[row][column] for decode_head and decode_prepare: the residual's rows are
 * 8 at one column each, so their norm's factor is 1, and the norm's weight is 1 / 8.
 */
async function weightsSeen(gpu: Gpu, codes: (row: number, column: number) => number) {
  const spec = {
    key: "head",
    format: "fp8",
    matrices: 1,
    rows: CODES,
    columns: COLUMNS,
    scale: { rowsPerScale: 48, columnsPerScale: 32 },
  } as const;
  const matrix = Matrix.allocate(gpu, spec);
  const bytes = Uint8Array.from(
    { length: CODES * COLUMNS },
    (_, at) => codes(Math.floor(at / COLUMNS), at % COLUMNS),
  );
  matrix.write(0, 0, bytes);
  matrix.writeScales(0, Float32Array.from({ length: 12 }, (_, at) => 2 ** (3 * at - 20)));
  const norm = Matrix.allocate(gpu, {
    key: "norm",
    format: "f32",
    matrices: 1,
    rows: 1,
    columns: COLUMNS,
    scale: null,
  });
  norm.write(0, 0, new Uint8Array(new Float32Array(COLUMNS).fill(1 / 8).buffer));
  const shape = shapeOf({ hiddenSize: COLUMNS, vocabularySize: CODES, normEpsilon: 0 });
  const storage = rowStorage(matrix);
  assert.equal(storage?.format, "fp8");
  const projections = await Projections.create(gpu, 1);
  const head = await createHead(gpu, projections, shape, COLUMNS, storage);
  const residual = new Float32Array(COLUMNS * COLUMNS);
  for (let i = 0; i < COLUMNS; i++) residual[i * COLUMNS + i] = 8;
  const rows = upload(gpu, Uint32Array.from({ length: COLUMNS }, (_, i) => i));
  const y = upload(gpu, new Float32Array(COLUMNS * CODES).fill(NaN));
  const recorder = new Recorder(gpu);
  const weights = { norm, head: matrix };
  const wanted = { residual: upload(gpu, residual), rows, groups: null, count: COLUMNS };
  head.encode(recorder, wanted, y, weights);
  return await download(gpu, y, COLUMNS * CODES, recorder);
}

withGpu("fp8 rows are exact for every code at every place of a group", async (gpu) => {
  const code = (row: number, column: number) => {
    const bits = (row + 37 * column) % CODES;
    return (bits & NAN_CODE) === NAN_CODE ? 0 : bits;
  };
  const seen = await weightsSeen(gpu, code);
  for (let column = 0; column < COLUMNS; column++) {
    for (let row = 0; row < CODES; row++) {
      const scale = 2 ** (3 * (2 * Math.floor(row / 48) + Math.floor(column / 32)) - 20);
      const wanted = decodeE4m3(code(row, column)) * scale;
      // Whatever the sign of zero.
      const found = seen[column * CODES + row]!;
      assert.ok(found === wanted, `code ${code(row, column)} at ${column}: ${found}, ${wanted}`);
    }
  }
});

withGpu("an fp8 NaN makes its row NaN, wherever it is, and no other", async (gpu) => {
  const isBroken = (row: number, column: number) => row % 4 === 1 && row % COLUMNS === column;
  const code = (row: number, column: number) =>
    isBroken(row, column) ? (row % 8 === 1 ? 0x7f : 0xff) : (row + column) % 0x7f;
  const seen = await weightsSeen(gpu, code);
  seen.forEach((value, at) => {
    assert.equal(Number.isNaN(value), at % CODES % 4 === 1, `row ${at % CODES}: ${value}`);
  });
});

/** Rows and columns of a scale. */
const GRIDS = [[32, 32], [16, 64], [1, 1 << 20]] as const;
const MODELS = [
  ...GRIDS.map((grid) => ({ grid, small: false, dispatches: DISPATCHES })),
  // The head is fused too, which saves a dispatch.
  { grid: GRIDS[0], small: true, dispatches: DISPATCHES - 2 },
];

function blockModel([rows, columns]: readonly [number, number], small = false) {
  return blockTensors(randomModel(), rows, columns, randomSource(77), small);
}

for (const { grid, small, dispatches } of MODELS) {
  const stored = `scales of ${grid.join(" x ")}${small ? ", small matrices too (widen_rows)" : ""}`;
  Deno.test({
    name: `decode kernels agree with the reference in f64, fp8 with ${stored}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const tensors = blockModel(grid, small);
      const weight = weightSource(tensors);
      const device = await loaded(SHAPE, tensors);
      try {
        const state = referenceZeroState(SHAPE);
        const prompt = TEXT.slice(0, 20);
        referenceForward(SHAPE, weight, prompt, state);
        await run(device, SHAPE, [{ slot: 1, past: 0, tokens: prompt }]);
        let worst = 0;
        for (let past = 20; past < TEXT.length; past++) {
          const tokens = [TEXT[past]!];
          const { residuals, logits } = await run(device, SHAPE, [{ slot: 1, past, tokens }]);
          const wanted = referenceForward(SHAPE, weight, tokens, state);
          residuals.forEach((found, block) => {
            const { name, residual } = wanted.blocks[block + 1]!;
            const error = normalizedError(found, residual);
            worst = Math.max(worst, error);
            assert.ok(error < ERROR_MAX, `token ${past}, ${name}: ${error}`);
          });
          const error = normalizedError(logits[0]!, wanted.logits);
          assert.ok(error < ERROR_MAX, `token ${past}, logits: ${error}`);
        }
        console.log(`normalised squared error: worst ${worst}`);
        assert.equal(device.dispatchCount, dispatches);
      } finally {
        device.destroy();
      }
    },
  });
}

/** Steps of single rows beside the same rows as pairs of one sequence, which prefill computes. */
Deno.test({
  name: "decode kernels agree with the generic ones, fp8",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await loaded(SHAPE, blockModel([32, 32]));
    const hidden = SHAPE.hiddenSize;
    let worst = 0;
    const compare = (found: Float32Array, wanted: Float32Array) => {
      worst = Math.max(worst, normalizedError(found, wanted));
    };
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
          compare(found, pair.residuals[block]!.subarray(hidden));
        });
        compare(single.logits[0]!, pair.logits[0]!);
      }
    } finally {
      device.destroy();
    }
    console.log(`normalised squared error: worst ${worst}`);
    assert.ok(worst < ERROR_MAX, `worst ${worst}`);
  },
});

Deno.test({
  name: "decode kernels give a row the same bits beside other rows and prompts, fp8",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await loaded(SHAPE, blockModel([16, 64]));
    const prompts = [0, 1, 2].map((slot) => ({ slot, past: 0, tokens: TEXT.slice(slot, 16) }));
    const restart = async () => {
      for (const slot of [0, 1, 2, 3]) device.zeroSlot(slot);
      for (const part of prompts) await run(device, SHAPE, [part]);
    };
    const singles = prompts.map(({ slot, tokens }) => ({ slot, past: tokens.length, tokens: [5] }));
    try {
      await restart();
      const alone: Float32Array[] = [];
      for (const part of singles) alone.push((await run(device, SHAPE, [part])).logits[0]!);
      await restart();
      const newcomer = { slot: 3, past: 0, tokens: TEXT.slice(0, 7) };
      const mixed = [singles[0]!, newcomer, singles[1]!, singles[2]!];
      const { logits } = await run(device, SHAPE, mixed);
      [0, 2, 3].forEach((index, row) => assert.deepEqual(logits[index], alone[row], `row ${row}`));
    } finally {
      device.destroy();
    }
  },
});

/** NaN and infinity of a token's embedding reach its logits, and no other row's. */
for (const broken of [NaN, Infinity]) {
  Deno.test({
    name: `decode kernels keep ${broken} and leave other rows alone, fp8`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const tensors = blockModel([32, 32]);
      const embed = dequantize(tensors.get("embed")![0]! as StoredMatrix);
      embed[3 * SHAPE.hiddenSize + 50] = broken;
      tensors.set("embed", [quantize(embed, SHAPE.vocabularySize, SHAPE.hiddenSize, "f32")]);
      const device = await loaded(SHAPE, tensors);
      try {
        device.begin(planOf([2, 3, 4].map((token, slot) => ({ slot, past: 0, tokens: [token] }))));
        device.embed();
        for (const [layer, { mixer, feedForward }] of SHAPE.layers.entries()) {
          device[mixer](layer);
          device[feedForward](layer);
        }
        device.logits();
        assert.deepEqual([...(await device.finish().result()).nonFinite], [0, 1, 0]);
      } finally {
        device.destroy();
      }
    },
  });
}
