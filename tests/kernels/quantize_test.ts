import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import {
  compileQuantizeRows,
  QuantizedRows,
  quantizeRows,
  stepCount,
} from "../../kernels/quantize_rows.ts";
import { roundToInt8Groups } from "../reference/formats.ts";
import { randomSource } from "../reference/random.ts";
import { download, upload, withGpu } from "./harness.ts";
import { columnsOf, randomRows } from "./weights.ts";

const SHAPES = [[3, 70], [1, 5], [37, 2_304], [9, 128], [20, 33]] as const;

async function wordsOf(gpu: Gpu, rows: QuantizedRows, rowCount: number, columns: number) {
  const steps = rowCount * stepCount(columns);
  const words = new Int8Array((await download(gpu, rows.words, 16 * steps)).buffer);
  return { bytes: words, scales: await download(gpu, rows.scales, 2 * steps) };
}

/** The values that rounded rows stand for, [rowCount][columns]. */
async function valuesOf(gpu: Gpu, rows: QuantizedRows, rowCount: number, columns: number) {
  const { bytes, scales } = await wordsOf(gpu, rows, rowCount, columns);
  const padded = 64 * stepCount(columns);
  return Float64Array.from({ length: rowCount * columns }, (_, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    // Of 8 columns the even ones come first.
    const place = column % 8 % 2 * 4 + (column % 8 >> 1);
    const at = row * padded + column - column % 8 + place;
    return bytes[at]! * scales[(row * padded + column) >> 5]!;
  });
}

withGpu("quantize_rows rounds exactly as the reference, padding is 0", async (gpu) => {
  const random = randomSource(70);
  const pipeline = await compileQuantizeRows(gpu);
  for (const [rowCount, columns] of SHAPES) {
    const stride = columns + 3;
    const x = randomRows(random, rowCount, columns, stride);
    const target = QuantizedRows.allocate(gpu, "test", rowCount, columns);
    const size = rowCount * stepCount(columns);
    gpu.write(target.words, 0, new Uint32Array(16 * size).fill(0x7fc00000));
    gpu.write(target.scales, 0, new Float32Array(2 * size).fill(NaN));
    const recorder = new Recorder(gpu);
    quantizeRows(recorder, pipeline, upload(gpu, x), stride, target, columns, rowCount);
    recorder.submit();
    const found = await valuesOf(gpu, target, rowCount, columns);
    const wanted = roundToInt8Groups(columnsOf(x, stride, columns), columns);
    const differs = found.findIndex((value, i) => value !== wanted[i]);
    assert.ok(differs < 0, `${columns} columns: ${differs}: ${found[differs]}, ${wanted[differs]}`);
    const { bytes, scales } = await wordsOf(gpu, target, rowCount, columns);
    const padded = 64 * stepCount(columns);
    const unit = Math.ceil(columns / 8) * 8;
    for (let row = 0; row < rowCount; row++) {
      const rest = bytes.subarray(row * padded + unit, (row + 1) * padded);
      assert.ok(rest.every((byte) => byte === 0), "padding");
      const unused = scales.subarray(
        row * padded / 32 + Math.ceil(columns / 32),
        (row + 1) * padded / 32,
      );
      assert.ok(unused.every((scale) => scale === 0), "scales of the padding");
    }
  }
});

withGpu("quantize_rows has exact scales at every magnitude", async (gpu) => {
  const random = randomSource(73);
  const [rowCount, columns] = [3_000, 32];
  const x = Float32Array.from({ length: rowCount * columns }, (_, index) => {
    const exponent = Math.floor(index / columns / rowCount * 226) - 99;
    const largest = Math.fround((1 + random()) * 2 ** exponent);
    return index % columns === 5 ? largest : Math.fround(largest * (random() - 0.5));
  });
  x[5] = 2 ** -100;
  x[(rowCount - 1) * columns + 5] = 3.4028234e38;
  const recorder = new Recorder(gpu);
  const target = QuantizedRows.allocate(gpu, "test", rowCount, columns);
  const pipeline = await compileQuantizeRows(gpu);
  quantizeRows(recorder, pipeline, upload(gpu, x), columns, target, columns, rowCount);
  recorder.submit();
  const found = await valuesOf(gpu, target, rowCount, columns);
  assert.deepEqual(found, roundToInt8Groups(x, columns));
});
