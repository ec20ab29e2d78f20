import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import type { Matrix } from "../../kernels/matrix.ts";
import { Projections } from "../../kernels/projection.ts";
import { compileQMatmul, qMatmul } from "../../kernels/q_matmul.ts";
import { compileQuantizeRows, QuantizedRows, quantizeRows } from "../../kernels/quantize_rows.ts";
import { roundToInt8Groups } from "../reference/formats.ts";
import { matmul } from "../reference/matmul.ts";
import { randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import {
  assertClose,
  assertSameBits,
  columnsOf,
  GROUPED_FORMATS,
  randomGroups,
  randomRows,
} from "./weights.ts";

const SEED = 20_261_125;
const ROWS_MAX = 200;
const COLUMNS_MAX = 2_400;

const shared = new WeakMap<Gpu, Promise<Projections>>();

function projections(gpu: Gpu): Promise<Projections> {
  const known = shared.get(gpu) ?? (async () => {
    const created = await Projections.create(gpu, ROWS_MAX);
    await created.prepare(GROUPED_FORMATS, COLUMNS_MAX);
    return created;
  })();
  shared.set(gpu, known);
  return known;
}

/** W x (+ before) of every row, [rowCount, matrix rows], with NaN where nothing was written. */
async function project(
  gpu: Gpu,
  matrix: Matrix,
  x: Float32Array,
  xStride: number,
  before: Float32Array | null = null,
): Promise<Float32Array> {
  const width = matrix.spec.rows;
  const rowCount = x.length / xStride;
  const output = guarded(gpu, rowCount * width);
  const y = upload(gpu, before ?? new Float32Array(rowCount * width).fill(NaN));
  const recorder = new Recorder(gpu);
  const target = await projections(gpu);
  const accumulate = before !== null;
  target.project(recorder, matrix, upload(gpu, x), xStride, y, width, 0, rowCount, accumulate);
  recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
  return takeGuarded(gpu, output, recorder);
}

function wantedOf(x: Float32Array, stride: number, columns: number, w: Float64Array, rows: number) {
  return matmul(roundToInt8Groups(columnsOf(x, stride, columns), columns), w, rows);
}

withGpu("project() (quantize_rows, q_matmul) equals the reference in odd shapes", async (gpu) => {
  const random = randomSource(SEED);
  const shapes = [[1, 7], [3, 16], [300, 120], [65, 513], [9, 1_100], [130, 96]] as const;
  for (const format of GROUPED_FORMATS) {
    for (const [rows, columns] of shapes) {
      const { matrix, values } = randomGroups(gpu, random, { format, rows, columns });
      for (const rowCount of [1, 3, 9, 70]) {
        const what = `${format} [${rows}, ${columns}] x ${rowCount} rows`;
        const stride = columns + 5;
        const x = randomRows(random, rowCount, columns, stride);
        const found = await project(gpu, matrix, x, stride);
        assertClose(found, wantedOf(x, stride, columns, values[0]!, rows), rows, what);
        assertSameBits(await project(gpu, matrix, x, stride), found, `${what}, again`);
      }
    }
  }
});

withGpu("project() of q8 and q4 crosses parts, with the same bits", async (gpu) => {
  const random = randomSource(SEED + 1);
  const [rows, columns] = [101, 150];
  for (const format of GROUPED_FORMATS) {
    const wish = { format, rows, columns };
    const whole = randomGroups(gpu, randomSource(SEED + 2), wish);
    const split = randomGroups(gpu, randomSource(SEED + 2), { ...wish, bindingLimitBytes: 4_096 });
    assert.ok(split.matrix.parts.length > 1);
    for (const rowCount of [2, 40]) {
      const x = randomRows(random, rowCount, columns, columns);
      const found = await project(gpu, split.matrix, x, columns);
      assertClose(found, wantedOf(x, columns, columns, split.values[0]!, rows), rows, format);
      assertSameBits(found, await project(gpu, whole.matrix, x, columns), format);
    }
  }
});

withGpu("project() of q8 and q4 gives a row the same bits in any company", async (gpu) => {
  const random = randomSource(SEED + 3);
  const [rows, columns, rowCount] = [90, 1_300, 70];
  for (const format of GROUPED_FORMATS) {
    const { matrix } = randomGroups(gpu, random, { format, rows, columns });
    const x = randomRows(random, rowCount, columns, columns);
    const all = await project(gpu, matrix, x, columns);
    for (const [start, count] of [[0, 1], [3, 1], [8, 6], [1, 9], [20, 33]] as const) {
      const some = x.slice(start * columns, (start + count) * columns);
      const wanted = all.slice(start * rows, (start + count) * rows);
      assertSameBits(
        await project(gpu, matrix, some, columns),
        wanted,
        `${format}, rows [${start}, + ${count})`,
      );
    }
  }
});

withGpu("q_matmul gives the same bits with the tiles of large GPUs", async (gpu) => {
  const random = randomSource(SEED + 4);
  const [rows, columns, rowCount] = [150, 200, 75];
  const tiles = {
    q8: { xRegisters: 8, wRegisters: 8, xThreads: 8, wThreads: 16 },
    q4: { xRegisters: 8, wRegisters: 8, xThreads: 16, wThreads: 16 },
  };
  const quantize = await compileQuantizeRows(gpu);
  for (const format of GROUPED_FORMATS) {
    const { matrix } = randomGroups(gpu, random, { format, rows, columns });
    const x = randomRows(random, rowCount, columns, columns);
    const wanted = await project(gpu, matrix, x, columns);
    const recorder = new Recorder(gpu);
    const rounded = QuantizedRows.allocate(gpu, "test", rowCount, columns);
    quantizeRows(recorder, quantize, upload(gpu, x), columns, rounded, columns, rowCount);
    const output = guarded(gpu, rowCount * rows);
    const pipeline = await compileQMatmul(gpu, format, tiles[format]);
    const y = gpu.buffer("test output", 4 * rowCount * rows);
    const target = { y, yStride: rows, yOffset: 0, accumulate: false };
    qMatmul(recorder, pipeline, matrix, rounded, rowCount, target);
    recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
    assertSameBits(await takeGuarded(gpu, output, recorder), wanted, format);
  }
});

withGpu("project() of q8 and q4 accumulates", async (gpu) => {
  const random = randomSource(SEED + 5);
  const [rows, columns] = [33, 47];
  for (const format of GROUPED_FORMATS) {
    const { matrix, values } = randomGroups(gpu, random, { format, rows, columns });
    for (const rowCount of [2, 12]) {
      const x = randomRows(random, rowCount, columns, columns);
      const before = randomRows(random, rowCount, rows, rows);
      const wanted = wantedOf(x, columns, columns, values[0]!, rows).map((v, i) => v + before[i]!);
      assertClose(await project(gpu, matrix, x, columns, before), wanted, rows, format);
    }
  }
});

withGpu("project() of q8 and q4 shows NaN and infinity in their own row only", async (gpu) => {
  const random = randomSource(SEED + 6);
  const [rows, columns] = [5, 70];
  for (const format of GROUPED_FORMATS) {
    const { matrix } = randomGroups(gpu, random, { format, rows, columns });
    for (const [bad, rowCount] of [[NaN, 3], [Infinity, 11], [-Infinity, 3]] as const) {
      const x = randomRows(random, rowCount, columns, columns);
      x[columns + 65] = bad;
      (await project(gpu, matrix, x, columns)).forEach((value, index) => {
        const row = Math.floor(index / rows);
        assert.equal(Number.isFinite(value), row !== 1, `${format}, ${bad}: element ${index}`);
      });
    }
  }
});

withGpu("QuantizedRows refuse more rows than they have room for", (gpu) => {
  const rounded = QuantizedRows.allocate(gpu, "test", 12, 70);
  rounded.check(24, 64);
  assert.throws(() => rounded.check(13, 70), /wanted at most 24 steps of 64 columns, found 26/);
  return Promise.resolve();
});
