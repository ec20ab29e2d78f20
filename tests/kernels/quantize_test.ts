import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileNormQuantize, normQuantize } from "../../kernels/norm_quantize.ts";
import {
  compileQuantizeRows,
  QuantizedRows,
  quantizeRows,
  stepCount,
} from "../../kernels/quantize_rows.ts";
import { RmsNorm } from "../../kernels/rms_norm.ts";
import { compileSiluMul, siluMul } from "../../kernels/silu_mul.ts";
import { compileSiluQuantize, siluQuantize } from "../../kernels/silu_quantize.ts";
import { roundToInt8Groups } from "../reference/formats.ts";
import { normals, randomSource } from "../reference/random.ts";
import { download, upload, withGpu } from "./harness.ts";
import { assertClose, assertSameBits, columnsOf, randomRows } from "./weights.ts";

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

withGpu("norm_quantize is rms_norm and quantize_rows in one", async (gpu) => {
  const random = randomSource(71);
  const [norm, quantize, both] = await Promise.all([
    RmsNorm.create(gpu),
    compileQuantizeRows(gpu),
    compileNormQuantize(gpu),
  ]);
  for (const [rowCount, columns] of SHAPES) {
    const [x, weight] = [
      upload(gpu, normals(random, rowCount * columns)),
      upload(gpu, normals(random, columns)),
    ];
    const recorder = new Recorder(gpu);
    const values = gpu.buffer("test values", 4 * rowCount * columns);
    const target = QuantizedRows.allocate(gpu, "test", rowCount, columns, values);
    normQuantize(recorder, both, x, weight, target, columns, rowCount, 1e-5);
    const y = gpu.buffer("test norm", 4 * rowCount * columns);
    norm.normalize(recorder, x, columns, weight, y, columns, columns, rowCount, 1e-5);
    const wanted = QuantizedRows.allocate(gpu, "test", rowCount, columns);
    quantizeRows(recorder, quantize, y, columns, wanted, columns, rowCount);
    const normed = await download(gpu, y, rowCount * columns, recorder);
    assertSameBits(await download(gpu, values, rowCount * columns), normed, `${columns} columns`);
    assert.deepEqual(
      await wordsOf(gpu, target, rowCount, columns),
      await wordsOf(gpu, wanted, rowCount, columns),
    );
  }
});

withGpu("silu_quantize is silu_mul and quantize_rows in one", async (gpu) => {
  const random = randomSource(72);
  const [silu, both] = await Promise.all([compileSiluMul(gpu), compileSiluQuantize(gpu)]);
  for (const [rowCount, columns] of SHAPES) {
    const gateUp = upload(gpu, normals(random, rowCount * 2 * columns));
    const recorder = new Recorder(gpu);
    const target = QuantizedRows.allocate(gpu, "test", rowCount, columns);
    siluQuantize(recorder, both, gateUp, target, columns, rowCount);
    const y = gpu.buffer("test product", 4 * rowCount * columns);
    siluMul(recorder, silu, gateUp, y, columns, rowCount);
    const product = await download(gpu, y, rowCount * columns, recorder);
    const wanted = roundToInt8Groups(product, columns);
    assertClose(await valuesOf(gpu, target, rowCount, columns), wanted, columns, `${columns}`);
  }
});
