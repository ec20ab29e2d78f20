/**
 * Bandwidth and arithmetic of projections on the adapter of this machine:
 *
 *   deno run -A tests/bench/projection_bench.ts
 *
 * Prints, for weights [rows, columns] and x of n rows, the time of one projection in a chain of
 * dependent ones, the weight bytes it reads a second and its floating-point operations a second.
 */
import { openGpu } from "../../kernels/gpu/gpu.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { FORMAT_BYTES, Matrix } from "../../kernels/matrix.ts";
import { Projections } from "../../kernels/projection.ts";
import type { WeightFormat } from "../../kernels/types.ts";

const FORMATS: readonly WeightFormat[] = ["bf16", "fp8"];
const SHAPES = [[12_288, 2_304], [2_304, 4_096], [163_840, 2_304]] as const;
const ROW_COUNTS = [1, 4, 8, 32, 512];
const ROUNDS = 3;
/** Projections of one submission on hardware and on a software adapter. */
const CHAIN = { hardware: 40, software: 1 };
/** Matrices larger than this are left out on a software adapter. */
const SOFTWARE_ELEMENTS_MAX = 30_000_000;

const gpu = await openGpu({ software: true });
const readback = await Readback.create(gpu, 16);
const projections = await Projections.create(gpu, Math.max(...ROW_COUNTS));
await projections.prepare(FORMATS);
const chain = gpu.software ? CHAIN.software : CHAIN.hardware;
console.log(`adapter: ${gpu.description}`);
console.log("format  rows     columns  n    us        GB/s     TFLOP/s");

for (const format of FORMATS) {
  for (const [rows, columns] of SHAPES) {
    if (gpu.software && rows * columns > SOFTWARE_ELEMENTS_MAX) continue;
    const scale = format === "fp8" ? { rowsPerScale: 128, columnsPerScale: 128 } : null;
    const matrix = Matrix.allocate(gpu, {
      key: "bench",
      format,
      matrices: 1,
      rows,
      columns,
      scale,
    });
    for (const rowCount of ROW_COUNTS) {
      if (gpu.software && rowCount > 8) continue;
      const seconds = await time(matrix, rowCount);
      const bytes = rows * columns * FORMAT_BYTES[format];
      const operations = 2 * rows * columns * rowCount;
      console.log(
        [
          format.padEnd(7),
          String(rows).padEnd(8),
          String(columns).padEnd(8),
          String(rowCount).padEnd(4),
          (seconds * 1e6).toFixed(1).padEnd(9),
          (bytes / seconds / 1e9).toFixed(0).padEnd(8),
          (operations / seconds / 1e12).toFixed(2),
        ].join(" "),
      );
    }
    for (const part of matrix.parts) part.buffer.destroy();
  }
}
gpu.destroy();

/** Seconds of one projection: the best round's mean over a chain that writes the same y. */
async function time(matrix: Matrix, rowCount: number): Promise<number> {
  const { rows, columns } = matrix.spec;
  const x = gpu.buffer("x", 4 * rowCount * columns);
  const y = gpu.buffer("y", 4 * rowCount * rows);
  const recorder = new Recorder(gpu);
  let best = Infinity;
  for (let round = 0; round <= ROUNDS; round++) {
    for (let i = 0; i < chain; i++) {
      projections.project(recorder, matrix, x, columns, y, rows, 0, rowCount, false);
    }
    const start = performance.now();
    await readback.read(recorder, y, 0, 16);
    const seconds = (performance.now() - start) / 1e3 / chain;
    // The first round warms the pipelines up.
    if (round > 0) best = Math.min(best, seconds);
  }
  x.destroy();
  y.destroy();
  return best;
}
