import assert from "node:assert";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { RmsNorm } from "../../kernels/rms_norm.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertClose, assertSameBits, columnsOf, randomRows } from "./weights.ts";

const SEED = 41;

withGpu("normalize() agrees with the reference, a row alone or among others", async (gpu) => {
  const random = randomSource(SEED);
  const norm = await RmsNorm.create(gpu);
  for (const [width, rowCount] of [[1, 1], [40, 3], [120, 331], [128, 2], [777, 5], [2304, 2]]) {
    const xStride = width! + 3;
    const x = randomRows(random, rowCount!, width!, xStride);
    x.fill(0, 0, width);
    const weight = normals(random, width!);
    const run = async (rows: Float32Array, count: number) => {
      const output = guarded(gpu, count * width!);
      const y = gpu.buffer("y", 4 * count * width!);
      const recorder = new Recorder(gpu);
      const weights = upload(gpu, weight);
      norm.normalize(recorder, upload(gpu, rows), xStride, weights, y, width!, width!, count, 1e-5);
      recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
      return await takeGuarded(gpu, output, recorder);
    };
    const found = await run(x, rowCount!);
    const wanted = rmsNorm(columnsOf(x, xStride, width!), weight, 1e-5);
    assertClose(found, wanted, width!, `width ${width}`);
    assertSameBits(await run(x, rowCount!), found, `width ${width}, again`);
    const last = (rowCount! - 1) * xStride;
    const alone = await run(x.slice(last), 1);
    assertSameBits(alone, found.slice(-width!), `width ${width}, alone`);
  }
});

withGpu("normalize() writes only the width of each row", async (gpu) => {
  const norm = await RmsNorm.create(gpu);
  const output = guarded(gpu, 2 * 7);
  const x = upload(gpu, new Float32Array(10).fill(1));
  const weight = upload(gpu, new Float32Array(5).fill(2));
  const y = upload(gpu, new Float32Array(14).fill(-9));
  const recorder = new Recorder(gpu);
  norm.normalize(recorder, x, 5, weight, y, 7, 5, 2, 0);
  recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
  const row = [2, 2, 2, 2, 2, -9, -9];
  assert.deepEqual([...await takeGuarded(gpu, output, recorder)], [...row, ...row]);
});

withGpu("normalize() refuses a stride below the width", async (gpu) => {
  const norm = await RmsNorm.create(gpu);
  const buffer = gpu.buffer("x", 64);
  const recorder = new Recorder(gpu);
  assert.throws(
    () => norm.normalize(recorder, buffer, 3, buffer, buffer, 4, 4, 1, 0),
    /wanted width 4 in x, y and weight, found 3, 4 and 16/,
  );
});
