/** Products of q8 and q4 weights with activations rounded to int8. */
import assert from "node:assert/strict";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { ModelShape } from "../../wasm/cpu_types.ts";
import { normalizedError } from "../reference/compare.ts";
import { dequantizeGroups, GROUP, type GroupedMatrix, quantize } from "../reference/formats.ts";
import { quantizeGroups } from "../reference/formats.ts";
import { IntegerWeights, matmul } from "../reference/matmul.ts";
import { randomTensors } from "../reference/random_model.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { wholeRows } from "../tools/logit_rows.ts";
import { beginStep, loadDevice, oddShape, smallCapacity, variants } from "./cpu_harness.ts";

const seed = 20261125;
const formats = ["q8", "q4"] as const;

/** Logits of tokens 0.. of a model without layers, whose norm does nothing but scale. */
async function logitsOf(
  embed: Float32Array,
  head: GroupedMatrix,
  rows: number,
  variant: CpuVariant,
  threads = 1,
): Promise<Float32Array> {
  const hidden = head.columns;
  const shape: ModelShape = {
    ...oddShape,
    vocabularySize: head.rows,
    hiddenSize: hidden,
    layers: [],
  };
  const tensors = randomTensors(shape, { format: "f32" }, randomSource(1));
  tensors.set("embed", [quantize(embed, head.rows, hidden, "f32")]);
  tensors.set("head", [head]);
  tensors.set("norm", [quantize(new Float32Array(hidden).fill(1), 1, hidden, "f32")]);
  const device = await loadDevice(shape, tensors, variant, smallCapacity, threads);
  const tokens = Array.from({ length: rows }, (_, row) => row);
  beginStep(device, [{
    slot: 0,
    past: 0,
    tokens,
    pages: Uint32Array.from({ length: 16 }, (_, i) => i),
  }]);
  device.embed();
  device.logits();
  const logits = await wholeRows(await device.finish().result(), rows);
  device.destroy();
  return logits;
}

function wantedLogits(embed: Float32Array, head: GroupedMatrix, rows: number): Float64Array {
  const ones = new Float64Array(head.columns).fill(1);
  const x = embed.slice(0, rows * head.columns);
  const weights = new IntegerWeights(dequantizeGroups(head));
  return matmul(rmsNorm(x, ones, oddShape.normEpsilon), weights, head.rows);
}

for (const variant of variants) {
  for (const format of formats) {
    const name = `CpuDevice.logits() (${variant}, ${format}, seed ${seed})`;

    Deno.test(`${name} rounds activations to int8`, async () => {
      // Every size of tile: 1 to 9 rows; 1, 2, 4 groups of outputs; a cut group of columns.
      for (const [outputs, hidden] of [[77, 120], [16, 32], [31, 37], [9, 5]] as const) {
        const random = randomSource(seed);
        const embed = Float32Array.from(normals(random, outputs * hidden, 1));
        const values = normals(random, outputs * hidden, 1);
        const head = quantizeGroups(values, outputs, hidden, format);
        for (const rows of [1, 2, 3, 4, 5, 9]) {
          const found = await logitsOf(embed, head, rows, variant);
          const error = normalizedError(found, wantedLogits(embed, head, rows));
          assert.ok(error <= 1e-11, `${outputs} x ${hidden}, ${rows} rows: ${error}`);
        }
      }
    });

    Deno.test(`${name} holds the largest sums`, async () => {
      const [outputs, hidden] = [12, 2 * GROUP];
      const q4 = format === "q4";
      const [least, most] = q4 ? [-8, 7] : [-127, 127];
      // Rows of weights and of activations with every pattern of extreme signs.
      const sign = (row: number, column: number) => (column >> (row % 6)) & 1 ? -1 : 1;
      const embed = Float32Array.from(
        { length: outputs * hidden },
        (_, i) => sign(Math.floor(i / hidden), i % hidden),
      );
      const bytes = new Uint8Array(outputs * hidden / (q4 ? 2 : 1));
      for (let i = 0; i < outputs * hidden; i++) {
        const row = Math.floor(i / hidden);
        const value = row === 11 ? least : sign(row, i % hidden) > 0 ? most : least;
        if (q4) bytes[i >> 1]! |= (value + 8) << (4 * (i & 1));
        else bytes[i] = value;
      }
      const scales = new Uint16Array(outputs * 2).fill(0x3c00);
      const head: GroupedMatrix = { format, rows: outputs, columns: hidden, bytes, scales };
      for (const rows of [1, 12]) {
        const found = await logitsOf(embed, head, rows, variant);
        const wanted = wantedLogits(embed, head, rows);
        for (let i = 0; i < found.length; i++) {
          assert.ok(
            Math.abs(found[i]! - wanted[i]!) <= Math.abs(wanted[i]!) * 1e-6 + 1e-3,
            `${i}: ${found[i]}, wanted ${wanted[i]}`,
          );
        }
      }
    });

    Deno.test(`${name} keeps what is not finite`, async () => {
      const [outputs, hidden] = [8, 40];
      const values = normals(randomSource(seed), outputs * hidden, 1);
      const embed = Float32Array.from(values);
      embed[3] = NaN;
      embed[hidden + 35] = Infinity;
      embed.fill(0, 2 * hidden, 3 * hidden);
      const head = quantizeGroups(values, outputs, hidden, format);
      const found = await logitsOf(embed, head, 4, variant);
      const finite = [...found].map(Number.isFinite);
      assert.ok(finite.slice(0, 2 * outputs).every((value) => !value));
      assert.ok(finite.slice(2 * outputs).every((value) => value));
      assert.deepEqual([...found.slice(2 * outputs, 3 * outputs)], Array(outputs).fill(0));
    });
  }
}
