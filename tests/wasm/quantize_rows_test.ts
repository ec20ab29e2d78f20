/** Rounding to q8 and q4: the same steps in TypeScript, and the error of simpler ones. */
import assert from "node:assert";
import {
  decodeBf16,
  dequantize,
  dequantizeGroups,
  encodeF16,
  type GroupedMatrix,
  quantize,
  quantizeGroups,
  type ScaleGrid,
} from "../reference/formats.ts";
import { roundToGroups } from "../reference/quantize.ts";
import { normals, randomSource } from "../reference/random.ts";
import { Quantizer, type SourceFormat, UnstorableRow } from "../../wasm/quantizer.ts";

const PIECE_BYTES = 65_536;

/** A matrix through the module in one piece, `firstRow` rows into its matrix. */
function through(
  quantizer: Quantizer,
  format: SourceFormat,
  bytes: Uint8Array,
  rows: number,
  columns: number,
  target: "q8" | "q4",
  grid: ScaleGrid | null = null,
): GroupedMatrix {
  quantizer.input(bytes.length).set(bytes);
  if (grid !== null) quantizer.setScales(Float32Array.from(grid.values));
  const source = { format, columns, scale: grid };
  const { elements, scales } = quantizer.quantize(source, target === "q8" ? 8 : 4, 0, rows);
  const words = scales.slice();
  return {
    format: target,
    rows,
    columns,
    bytes: elements.slice(),
    scales: new Uint16Array(words.buffer),
  };
}

for (const format of ["f32", "f16", "bf16", "fp8"] as const) {
  for (const target of ["q8", "q4"] as const) {
    Deno.test(`${format} to ${target}: the same bits as the reference`, () => {
      const quantizer = new Quantizer(PIECE_BYTES);
      for (const [rows, columns] of [[3, 1], [5, 31], [2, 32], [4, 100], [3, 288], [7, 77]]) {
        const values = normals(randomSource(rows! * columns!), rows! * columns!, 0.02);
        // Outliers, groups of zeros, and ones too small for a scale.
        values[0] = 1.5;
        for (let i = 40; i < 80 && i < values.length; i++) values[i] = 0;
        for (let i = 96; i < 128 && i < values.length; i++) values[i]! *= 1e-6;
        const scale: ScaleGrid | null = format !== "fp8" ? null : {
          rowsPerScale: 2,
          columnsPerScale: 24,
          values: normals(randomSource(9), Math.ceil(rows! / 2) * Math.ceil(columns! / 24), 0.1),
        };
        const stored = quantize(values, rows!, columns!, format, scale);
        const exact = Float32Array.from(dequantize(stored));
        const expected = roundToGroups(exact, rows!, columns!, target);
        const found = through(quantizer, format, stored.bytes, rows!, columns!, target, scale);
        assert.deepEqual(found, expected, `${rows} x ${columns}`);
      }
      quantizer.free();
    });
  }
}

Deno.test("q8 is within half a step; q4's search beats largest / 7 by a quarter", () => {
  const [rows, columns] = [64, 512];
  const quantizer = new Quantizer(4 * rows * columns);
  const values = normals(randomSource(5), rows * columns, 0.02);
  const stored = quantize(values, rows, columns, "f32");
  const q8 = through(quantizer, "f32", stored.bytes, rows, columns, "q8");
  const largest = Math.max(...values.map(Math.abs));
  dequantizeGroups(q8).forEach((value, i) => {
    assert.ok(Math.abs(value - values[i]!) <= largest / 127 * 0.51);
  });
  const q4 = squaredError(through(quantizer, "f32", stored.bytes, rows, columns, "q4"), values);
  const toSeven = squaredError(quantizeGroups(values, rows, columns, "q4"), values);
  assert.ok(q4 < 0.75 * toSeven, `${q4} against ${toSeven}`);
  quantizer.free();
});

function squaredError(matrix: GroupedMatrix, values: Float32Array): number {
  return dequantizeGroups(matrix).reduce((sum, v, i) => sum + (v - values[i]!) ** 2, 0);
}

Deno.test("values that are not finite or too large are refused with their row", () => {
  const quantizer = new Quantizer(PIECE_BYTES);
  for (const bad of [NaN, -Infinity, Infinity, 1e7]) {
    for (const target of ["q8", "q4"] as const) {
      const values = new Float32Array(3 * 40).fill(0.5);
      values[2 * 40 + 39] = bad;
      const bytes = new Uint8Array(values.buffer);
      assert.throws(
        () => through(quantizer, "f32", bytes, 3, 40, target),
        (error) => error instanceof UnstorableRow && error.row === 2,
      );
    }
  }
  const nan = Uint8Array.of(0x38, 0x7f);
  const grid = { rowsPerScale: 1, columnsPerScale: 2, values: Float32Array.of(1) };
  assert.throws(() => through(quantizer, "fp8", nan, 1, 2, "q8", grid), UnstorableRow);
  quantizer.free();
});

Deno.test("stored scales become f16 in rows of an even count", () => {
  const quantizer = new Quantizer(PIECE_BYTES);
  const bits = Uint16Array.from([0x3c01, 0xbf80, 0x3380, 0, 0x3f00, 0x3eab]);
  quantizer.input(12).set(new Uint8Array(bits.buffer));
  const scales = quantizer.convertScales("bf16", 3, 0, 2).slice();
  const f16 = [...bits].map((b) => encodeF16(decodeBf16(b)));
  const expected = [...f16.slice(0, 3), 0, ...f16.slice(3), 0];
  assert.deepEqual([...new Uint16Array(scales.buffer)], expected);
  // Every kind of f16, eight at a time and alone.
  const random = normals(randomSource(8), 8 * 50 + 5, 1);
  const kinds = random.map((x, i) => x * 2 ** ((i >> 3) % 38 - 26));
  quantizer.input(4 * kinds.length).set(new Uint8Array(kinds.buffer));
  const rounded = quantizer.convertScales("f32", kinds.length, 0, 1).slice();
  assert.deepEqual([...new Uint16Array(rounded.buffer)], [...[...kinds].map(encodeF16), 0]);
  const large = Float32Array.of(1, 70_000);
  quantizer.input(8).set(new Uint8Array(large.buffer));
  assert.throws(
    () => quantizer.convertScales("f32", 1, 4, 2),
    (error) => error instanceof UnstorableRow && error.row === 5,
  );
  quantizer.free();
});
