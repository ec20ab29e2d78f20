/**
 * Integer products with q8 and q4 matrices, every tile on every shape of a prefill:
 *
 *   deno run -A tests/bench/q_matmul_bench.ts [--small]
 *
 * Prints TOPS (two operations a multiply-add) and the best tile's GB/s of weights, which are read
 * once a tile of rows. Experts: 8 of 256 a row, skewed; pairs in tiles of the tile's rows. A tile
 * that does not compile is reported and left out. `--small`: tiny shapes, for a software adapter.
 */
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileGroupTokens, groupTokens, tileLimit } from "../../kernels/group_tokens.ts";
import { Matrix } from "../../kernels/matrix.ts";
import { compileQExpertMatmul, qExpertMatmul } from "../../kernels/q_expert_matmul.ts";
import { compileQMatmul, qMatmul } from "../../kernels/q_matmul.ts";
import type { QTile } from "../../kernels/gpu/tuning.ts";
import { type GroupedFormat, qTileRows } from "../../kernels/q_tile.ts";
import { QuantizedRows } from "../../kernels/quantize_rows.ts";

const SMALL = Deno.args.includes("--small");
const TILES: readonly QTile[] = SMALL
  ? [{ xRegisters: 4, wRegisters: 4, xThreads: 8, wThreads: 16 }]
  : [
    { xRegisters: 8, wRegisters: 8, xThreads: 16, wThreads: 16 },
    { xRegisters: 8, wRegisters: 8, xThreads: 8, wThreads: 16 },
    { xRegisters: 8, wRegisters: 8, xThreads: 8, wThreads: 8 },
    { xRegisters: 8, wRegisters: 4, xThreads: 16, wThreads: 16 },
    { xRegisters: 8, wRegisters: 4, xThreads: 8, wThreads: 16 },
    { xRegisters: 4, wRegisters: 8, xThreads: 16, wThreads: 16 },
    { xRegisters: 4, wRegisters: 8, xThreads: 8, wThreads: 16 },
    { xRegisters: 4, wRegisters: 4, xThreads: 8, wThreads: 16 },
  ];
const SHAPES = SMALL
  ? [[70, 96]] as const
  : [[12_288, 2_304], [2_304, 4_096], [18_432, 2_304], [2_304, 9_216]] as const;
const ROW_COUNTS = SMALL ? [40] : [512, 2_048, 8_192];
const EXPERT_SHAPES = SMALL ? [[24, 64]] as const : [[2_048, 2_304], [2_304, 1_024]] as const;
const [EXPERTS, CHOICES] = SMALL ? [4, 2] : [256, 8];
const FORMATS: readonly GroupedFormat[] = ["q4", "q8"];
/** Of one measurement; a chain is made about as long. */
const CHAIN_SECONDS = 0.03;
/** Above this no further measurement begins. */
const TOTAL_SECONDS = 55;

const began = performance.now();
const gpu = await openGpu({ software: true });
const readback = await Readback.create(gpu, 16);
console.log(`adapter: ${gpu.description}; x registers x threads, weights the same`);
for (const format of FORMATS) {
  for (const [rows, columns] of SHAPES) await benchMatrix(format, rows, columns);
  for (const [rows, columns] of EXPERT_SHAPES) await benchExperts(format, rows, columns);
}
gpu.destroy();

function nameOf({ xRegisters, wRegisters, xThreads, wThreads }: QTile): string {
  return `${xRegisters}x${xThreads}/${wRegisters}x${wThreads}`;
}

/** Those that compile, together. */
async function compiled<P>(make: (tile: QTile) => Promise<P>): Promise<P[]> {
  const results = await Promise.allSettled(TILES.map(make));
  results.forEach((result, index) => {
    if (result.status === "rejected") console.log(nameOf(TILES[index]!), String(result.reason));
  });
  return results.flatMap((result) => result.status === "fulfilled" ? [result.value] : []);
}

async function benchMatrix(format: GroupedFormat, rows: number, columns: number): Promise<void> {
  const pipelines = await compiled((tile) => compileQMatmul(gpu, format, tile));
  const matrix = filledMatrix(gpu, format, rows, columns, 1);
  for (const rowCount of ROW_COUNTS) {
    const x = filledRows(rowCount, columns);
    const y = gpu.buffer("y", 4 * rowCount * rows);
    const target = { y, yStride: rows, yOffset: 0, accumulate: false };
    const results = [];
    for (const pipeline of pipelines) {
      const seconds = await time(y, (recorder) => {
        qMatmul(recorder, pipeline, matrix, x, rowCount, target);
      });
      results.push({ tile: pipeline.tile, seconds });
    }
    report(`${format} [${rows}, ${columns}] x ${rowCount}`, results, rows * columns, {
      format,
      rowCount,
    });
    destroy([y, x.words, x.scales]);
  }
  destroy(matrix.parts.map(({ buffer }) => buffer));
}

async function benchExperts(format: GroupedFormat, rows: number, columns: number): Promise<void> {
  const pipelines = await compiled((tile) => compileQExpertMatmul(gpu, format, tile));
  const matrix = filledMatrix(gpu, format, rows, columns, EXPERTS);
  const group = await compileGroupTokens(gpu, EXPERTS);
  for (const rowCount of ROW_COUNTS) {
    const pairCount = rowCount * CHOICES;
    // Twice the mean for some experts, half of it for others.
    const experts = gpu.buffer("experts", 4 * pairCount);
    const chosen = Uint32Array.from(
      { length: pairCount },
      () => Math.floor(Math.random() ** 1.3 * EXPERTS),
    );
    gpu.write(experts, 0, chosen);
    const x = filledRows(pairCount, columns);
    const y = gpu.buffer("y", 4 * pairCount * rows);
    const order = gpu.buffer("order", 4 * pairCount);
    const expertUse = gpu.buffer("use", 4 * EXPERTS);
    const results = [];
    for (const pipeline of pipelines) {
      const size = qTileRows(pipeline.tile).x;
      const limit = tileLimit(pairCount, EXPERTS, size);
      const tiles = gpu.buffer("tiles", 16 * limit);
      const recorder = new Recorder(gpu);
      groupTokens(
        recorder,
        group,
        { experts, order, tiles, expertUse, useOffset: 0 },
        pairCount,
        size,
      );
      recorder.submit();
      const target = { y, yStride: rows, yOffset: 0, tiles, order, pairCount, tileLimit: limit };
      const seconds = await time(y, (into) => {
        qExpertMatmul(into, pipeline, matrix, x, { ...target, pairsPerXRow: 1 });
      });
      results.push({ tile: pipeline.tile, seconds });
      destroy([tiles]);
    }
    report(`${format} experts [${rows}, ${columns}] x ${pairCount}`, results, rows * columns, {
      format,
      rowCount: pairCount,
    });
    destroy([y, x.words, x.scales, experts, order, expertUse]);
  }
  destroy(matrix.parts.map(({ buffer }) => buffer));
}

function report(
  what: string,
  results: readonly { readonly tile: QTile; readonly seconds: number | null }[],
  elements: number,
  { format, rowCount }: { readonly format: GroupedFormat; readonly rowCount: number },
): void {
  const measured = results.flatMap(({ tile, seconds }) =>
    seconds === null ? [] : [{ tile, seconds }]
  );
  if (measured.length === 0) return;
  measured.sort((a, b) => a.seconds - b.seconds);
  const best = measured[0]!;
  const bytes = elements * (format === "q4" ? 0.5625 : 1.0625) *
    Math.ceil(rowCount / qTileRows(best.tile).x);
  console.log(
    `${what}: best ${(best.seconds * 1e6).toFixed(0)} us, ` +
      `${(bytes / best.seconds / 1e9).toFixed(0)} GB/s of weights`,
  );
  const tops = measured.map(({ tile, seconds }) =>
    `${nameOf(tile)} ${(2 * elements * rowCount / seconds / 1e12).toFixed(1)}`
  );
  console.log(`  TOPS: ${tops.join(", ")}`);
}

/** Seconds of one call: the better of two chains; null where the time for all is up. */
async function time(y: GPUBuffer, record: (recorder: Recorder) => void): Promise<number | null> {
  if (performance.now() - began > 1e3 * TOTAL_SECONDS) return null;
  const chain = async (count: number) => {
    const recorder = new Recorder(gpu);
    for (let i = 0; i < count; i++) record(recorder);
    const start = performance.now();
    await readback.read(recorder, y, 0, 16);
    return (performance.now() - start) / 1e3 / count;
  };
  await chain(1);
  const once = await chain(1);
  const count = Math.max(1, Math.min(200, Math.round(CHAIN_SECONDS / once)));
  return Math.min(await chain(count), await chain(count));
}

/** Bytes that are small integers as elements and finite numbers as scales. */
function noise(length: number): Uint8Array {
  return Uint8Array.from({ length }, () => Math.floor(Math.random() * 256) & 0x3b);
}

function fill(buffer: GPUBuffer): void {
  const bytes = noise(Math.min(1 << 20, buffer.size));
  for (let at = 0; at < buffer.size; at += bytes.length) {
    gpu.write(buffer, at, bytes, Math.min(bytes.length, buffer.size - at));
  }
}

function filledMatrix(
  target: Gpu,
  format: GroupedFormat,
  rows: number,
  columns: number,
  matrices: number,
): Matrix {
  const spec = { key: "bench", format, matrices, rows, columns, scale: null };
  const matrix = Matrix.allocate(target, spec);
  for (const part of matrix.parts) fill(part.buffer);
  return matrix;
}

function filledRows(rowCount: number, columns: number): QuantizedRows {
  const rows = QuantizedRows.allocate(gpu, "x", rowCount, columns);
  fill(rows.words);
  fill(rows.scales);
  return rows;
}

function destroy(buffers: readonly GPUBuffer[]): void {
  for (const buffer of buffers) buffer.destroy();
}
