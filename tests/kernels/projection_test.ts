import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import type { Matrix } from "../../kernels/matrix.ts";
import { MATVEC_ROWS_MAX, Projections } from "../../kernels/projection.ts";
import { matmul } from "../reference/matmul.ts";
import { randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import {
  assertClose,
  assertSameBits,
  columnsOf,
  FORMATS,
  type MatrixWish,
  randomMatrix,
  randomRows,
} from "./weights.ts";

const SEED = 20_260_101;
const ROWS_MAX = 400;

const shared = new WeakMap<Gpu, Promise<Projections>>();

function projections(gpu: Gpu): Promise<Projections> {
  const known = shared.get(gpu) ?? (async () => {
    const created = await Projections.create(gpu, ROWS_MAX);
    await created.prepare(FORMATS);
    return created;
  })();
  shared.set(gpu, known);
  return known;
}

/** W x of every row, into an output with guards and NaN: [rowCount, matrix rows], unpadded. */
async function project(
  gpu: Gpu,
  matrix: Matrix,
  x: Float32Array,
  xStride: number,
  rowCount: number,
): Promise<Float32Array> {
  const width = matrix.spec.rows;
  const output = guarded(gpu, rowCount * width);
  // The offset of the guarded part, as an element offset inside the first row.
  const yOffset = output.offset / 4;
  const recorder = new Recorder(gpu);
  const { buffer } = output;
  const target = await projections(gpu);
  if (rowCount === 1) {
    target.project(
      recorder,
      matrix,
      upload(gpu, x),
      xStride,
      buffer,
      yOffset + width,
      yOffset,
      1,
      false,
    );
    return takeGuarded(gpu, output, recorder);
  }
  const plain = gpu.buffer("test output", 4 * rowCount * (width + 3));
  gpu.write(plain, 0, new Uint32Array(rowCount * (width + 3)).fill(0x7fc00000));
  target.project(recorder, matrix, upload(gpu, x), xStride, plain, width + 3, 2, rowCount, false);
  for (let row = 0; row < rowCount; row++) {
    recorder.copy(
      plain,
      4 * row * (width + 3) + 8,
      buffer,
      output.offset + 4 * row * width,
      4 * width,
    );
  }
  return takeGuarded(gpu, output, recorder);
}

async function checkShape(
  gpu: Gpu,
  random: () => number,
  wish: MatrixWish,
  rowCount: number,
): Promise<void> {
  const { rows, columns, format } = wish;
  const what = `${format} [${rows}, ${columns}] x ${rowCount} rows, scale ${
    JSON.stringify(wish.scale)
  }`;
  const { matrix, values } = randomMatrix(gpu, random, wish);
  const stride = columns + 5;
  const x = randomRows(random, rowCount, columns, stride);
  const found = await project(gpu, matrix, x, stride, rowCount);
  assertClose(found, matmul(columnsOf(x, stride, columns), values[0]!, rows), rows, what);
  assertSameBits(await project(gpu, matrix, x, stride, rowCount), found, `${what}, again`);
}

withGpu(
  "project() (matvec, matmul) equals the reference in every format, odd shapes",
  async (gpu) => {
    const random = randomSource(SEED);
    const shapes = [[1, 1], [3, 16], [777, 120], [40, 120], [120, 40], [65, 513], [
      9,
      1100,
    ]] as const;
    for (const format of FORMATS) {
      for (const [rows, columns] of shapes) {
        for (const rowCount of [1, MATVEC_ROWS_MAX - 3, MATVEC_ROWS_MAX + 1]) {
          await checkShape(gpu, random, { format, rows, columns }, rowCount);
        }
      }
    }
  },
);

withGpu("project() takes many rows", async (gpu) => {
  const random = randomSource(SEED + 1);
  for (const rowCount of [32, 33, 65, 331]) {
    await checkShape(gpu, random, { format: "bf16", rows: 70, columns: 120 }, rowCount);
  }
});

withGpu("project() applies every grid of scales", async (gpu) => {
  const random = randomSource(SEED + 2);
  const grids = [[128, 128], [13, 7], [5, 48], [1, 300], [1, 16], [1000, 1000]] as const;
  for (const [rowsPerScale, columnsPerScale] of grids) {
    for (const rowCount of [2, 20]) {
      const scale = { rowsPerScale, columnsPerScale };
      await checkShape(gpu, random, { format: "fp8", rows: 150, columns: 300, scale }, rowCount);
    }
  }
});

withGpu("project() crosses the parts of a split matrix", async (gpu) => {
  const random = randomSource(SEED + 3);
  for (const format of FORMATS) {
    const bindingLimitBytes = 4_096;
    const wish = { format, rows: 101, columns: 50, bindingLimitBytes };
    const scale = { rowsPerScale: 9, columnsPerScale: 50 };
    const whole = randomMatrix(gpu, randomSource(SEED + 4), { ...wish, scale });
    assert.ok(whole.matrix.parts.length > 1);
    await checkShape(gpu, random, { ...wish, scale }, 3);
    await checkShape(gpu, random, { ...wish, scale }, 17);
  }
});

withGpu("project() gives a row the same bits alone, in a batch and in a prefill", async (gpu) => {
  const random = randomSource(SEED + 5);
  const [rows, columns, rowCount] = [90, 1_300, 70];
  for (const format of FORMATS) {
    const scale = { rowsPerScale: 32, columnsPerScale: 40 };
    const { matrix } = randomMatrix(gpu, random, { format, rows, columns, scale });
    const x = randomRows(random, rowCount, columns, columns);
    const all = await project(gpu, matrix, x, columns, rowCount);
    for (const [start, count] of [[0, 1], [3, 1], [8, 6], [1, 9], [20, 33]] as const) {
      const some = x.slice(start * columns, (start + count) * columns);
      const found = await project(gpu, matrix, some, columns, count);
      const wanted = all.slice(start * rows, (start + count) * rows);
      assertSameBits(found, wanted, `${format}, rows [${start}, + ${count})`);
    }
  }
});

withGpu("project() accumulates", async (gpu) => {
  const random = randomSource(SEED + 6);
  const [rows, columns] = [33, 47];
  const { matrix, values } = randomMatrix(gpu, random, { format: "bf16", rows, columns });
  for (const rowCount of [2, 12]) {
    const x = randomRows(random, rowCount, columns, columns);
    const before = randomRows(random, rowCount, rows, rows);
    const output = guarded(gpu, rowCount * rows);
    const y = upload(gpu, before);
    const recorder = new Recorder(gpu);
    const target = await projections(gpu);
    target.project(recorder, matrix, upload(gpu, x), columns, y, rows, 0, rowCount, true);
    recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
    const wanted = matmul(Float64Array.from(x), values[0]!, rows).map((v, i) => v + before[i]!);
    assertClose(await takeGuarded(gpu, output, recorder), wanted, rows, `${rowCount} rows`);
  }
});

withGpu("project() takes more weight rows than one dimension has workgroups", async (gpu) => {
  const random = randomSource(SEED + 7);
  await checkShape(gpu, random, { format: "fp8", rows: 530_000, columns: 3 }, 1);
});

withGpu("project() propagates NaN and infinity of its own row only", async (gpu) => {
  const random = randomSource(SEED + 8);
  const [rows, columns] = [5, 40];
  const { matrix } = randomMatrix(gpu, random, { format: "f32", rows, columns });
  for (const rowCount of [3, 11]) {
    const x = randomRows(random, rowCount, columns, columns);
    x[columns + 1] = NaN;
    const found = await project(gpu, matrix, x, columns, rowCount);
    found.forEach((value, index) => {
      assert.equal(Number.isNaN(value), Math.floor(index / rows) === 1, `element ${index}`);
    });
  }
});

withGpu("project() refuses what does not fit", async (gpu) => {
  const target = await projections(gpu);
  const { matrix } = randomMatrix(gpu, randomSource(SEED), { format: "bf16", rows: 4, columns: 6 });
  const buffer = gpu.buffer("small", 96);
  const recorder = new Recorder(gpu);
  const project = (xStride: number, yStride: number, rows: number) => () =>
    target.project(recorder, matrix, buffer, xStride, buffer, yStride, 0, rows, false);
  assert.throws(project(5, 4, 1), /wanted rows of at least 6 in x, found 5/);
  assert.throws(project(6, 3, 1), /wanted rows of at least 4 in y, found 3/);
  assert.throws(project(6, 4, 5), /wanted x of at least 120 bytes, found 96/);
  assert.throws(project(6, 4, 401), /wanted at most 400 rows, found 401/);
});
