/**
 * Matrices that one row meets, every kernel and format, against the adapter's read bandwidth:
 *
 *   deno run -A tests/bench/matvec_bench.ts [--small] [--format q4|q8|fp8|bf16]
 *
 * Two tables. Products alone: one matrix, as many copies in turn as no cache holds. Fused: decode
 * steps of models with few layers and large matrices, whose kernels read each matrix once; of a
 * kernel with several matrices it says their mean size, of experts what all chosen ones take.
 * Weights and scales count, and the median of all dispatches. `--small`: for a software adapter.
 */
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { Matrix } from "../../kernels/matrix.ts";
import { fillWithNoise, measurePeak, type Peak, timeDispatches } from "../../kernels/peak.ts";
import { Projections } from "../../kernels/projection.ts";
import type { ModelShape, TensorSpec } from "../../kernels/types.ts";
import { benchDevice } from "../../runtime/cli/bench_device.ts";
import { readShape, syntheticModel } from "../../runtime/cli/bench_synthetic.ts";
import { median } from "../../runtime/cli/statistics.ts";
import { residentBytes, type WeightChoice } from "../../runtime/weights/resident.ts";

const SMALL = Deno.args.includes("--small");
const FORMATS: readonly WeightChoice[] = ["q4", "q8", "fp8", "bf16"];
const chosen = Deno.args[Deno.args.indexOf("--format") + 1];
const formats = FORMATS.filter((format) => !Deno.args.includes("--format") || format === chosen);
/** [rows, columns]. */
const SHAPES = SMALL
  ? [[4_096, 288]] as const
  : [[163_840, 2_304], [65_536, 4_096], [16_384, 2_304], [16_384, 4_096]] as const;
/** All copies of a matrix together, several times a cache of 50 MB. */
const COLD_BYTES = SMALL ? 8e6 : 400e6;
/** Products of each measurement. */
const RUNS = SMALL ? 4 : 24;
/** Of products before those that count: an idle card takes a while until it runs at full rate. */
const WARM_MS = SMALL ? 0 : 300;
/** The aim holds for matrices above this. */
const LARGE_BYTES = 16e6;
const AIM = 0.75;
/** Kernels of the weights' products; attention and states are not asked for. */
const PRODUCTS = /^decode_(head|out|up|down|kda_in|mla_in)$|^expert_matvec$/;

const gpu = await openGpu({ software: true });
const peak = await measurePeak(gpu);
if (peak === null) throw new Error("measure: wanted an adapter with timestamps");
console.log(`adapter: ${gpu.description}, reads ${gigabytes(peak.readBytesPerSecond)} GB/s`);
console.log(`aim above ${LARGE_BYTES / 1e6} MB: ${100 * AIM}% of that; * misses it`);
console.log("\nproducts alone");
for (const format of formats) {
  for (const [rows, columns] of SHAPES) await benchProduct(gpu, peak, format, rows, columns);
}
gpu.destroy();
console.log("\nfused, and experts");
for (const format of formats) {
  // Products of bf16 are those above.
  const own = models().filter(([name]) => format !== "bf16" || name === "experts");
  for (const [name, shape] of own) await benchModel(name, shape, format);
}

function gigabytes(bytesPerSecond: number): string {
  const number = bytesPerSecond / 1e9;
  return number.toFixed(number < 10 ? 2 : 0);
}

function line(name: string, kernel: string, bytes: number, seconds: number, most: number): void {
  const share = bytes / seconds / most;
  const missed = bytes > LARGE_BYTES && share < AIM ? " *" : "";
  const cells = [
    `${(bytes / 1e6).toFixed(1)} MB`,
    `${(1e6 * seconds).toFixed(1)} us`,
    `${gigabytes(bytes / seconds)} GB/s`,
    `${(100 * share).toFixed(1)}%`,
  ];
  const text = cells.map((cell) => cell.padStart(13)).join("");
  console.log(`  ${name.padEnd(24)}${kernel.padEnd(18)}${text}${missed}`);
}

/** y = W x for one row through what the device takes for matrices used alone. */
async function benchProduct(
  gpu: Gpu,
  { readBytesPerSecond }: Peak,
  format: WeightChoice,
  rows: number,
  columns: number,
): Promise<void> {
  const scale = format === "fp8" ? { rowsPerScale: 128, columnsPerScale: 128 } : null;
  const spec: TensorSpec = { key: "bench", format, matrices: 1, rows, columns, scale };
  const bytes = residentBytes(spec);
  const matrices = Array.from({ length: Math.ceil(COLD_BYTES / bytes) }, () => {
    const matrix = Matrix.allocate(gpu, spec);
    for (const { buffer } of matrix.parts) fillWithNoise(gpu, buffer);
    return matrix;
  });
  const projections = await Projections.create(gpu, 1);
  await projections.prepare([format], columns);
  const [x, y] = [gpu.buffer("x", 4 * columns), gpu.buffer("y", 4 * rows)];
  const once = () =>
    timeDispatches(gpu, (recorder) => {
      for (let run = 0; run < RUNS; run++) {
        const matrix = matrices[run % matrices.length]!;
        projections.project(recorder, matrix, x, columns, y, rows, 0, 1, false);
      }
    });
  const began = performance.now();
  do await once(); while (performance.now() - began < WARM_MS);
  const times = (await once()).filter(({ kernel }) => kernel !== "quantize_rows");
  // A matrix of several parts takes as many dispatches.
  const parts = matrices[0]!.parts.length;
  const seconds = Array.from({ length: RUNS }, (_, run) => {
    const own = times.slice(run * parts, (run + 1) * parts);
    return own.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0) / 1e9;
  });
  const name = `${format} ${rows} x ${columns}`;
  line(name, times[0]!.kernel, bytes, median(seconds), readBytesPerSecond);
  for (const { parts } of matrices) parts.forEach(({ buffer }) => buffer.destroy());
  x.destroy();
  y.destroy();
}

/** Shapes whose matrices of hidden columns are large, and the published experts. */
function models(): [string, ModelShape][] {
  const shape = readShape("--synthetic", "48b");
  const layer = (mixer: "kda" | "mla", feedForward: "dense" | "moe") => ({ mixer, feedForward });
  const layers = [layer("kda", "dense"), layer("mla", "dense"), layer("kda", "dense")];
  // Software adapters have less workgroup memory than the published latents take.
  const mla = SMALL
    ? { ...shape.mla, headCount: 2, latentDim: 64, sharedKeyDim: 32 }
    : { ...shape.mla, headCount: 96 };
  const large = (hiddenSize: number): ModelShape => ({
    ...shape,
    layers,
    hiddenSize,
    vocabularySize: SMALL ? 1_024 : hiddenSize === 4_096 ? 65_536 : 163_840,
    kda: { ...shape.kda, headCount: SMALL ? 2 : 64 },
    mla,
    denseIntermediateSize: SMALL ? 512 : 16_384,
    // Of no layer: a shared expert that lies in no stack would keep the fused kernels away.
    moe: { ...shape.moe, sharedIntermediateSize: 0 },
  });
  const experts: ModelShape = {
    ...shape,
    mla,
    layers: Array(4).fill(layer("kda", "moe")),
    vocabularySize: 1_024,
    hiddenSize: SMALL ? 288 : shape.hiddenSize,
    kda: { ...shape.kda, headCount: SMALL ? 2 : shape.kda.headCount },
    moe: SMALL
      ? { ...shape.moe, expertCount: 16, intermediateSize: 64, sharedIntermediateSize: 64 }
      : shape.moe,
  };
  const sizes = SMALL ? [288] : [2_304, 4_096];
  return [
    ...sizes.map((hidden): [string, ModelShape] => [`hidden ${hidden}`, large(hidden)]),
    ["experts", experts],
  ];
}

async function benchModel(
  name: string,
  shape: ModelShape,
  format: WeightChoice,
): Promise<void> {
  const contexts = Array(SMALL ? 1 : 7).fill(0);
  const seconds = SMALL ? 0 : 0.2;
  const plan = { contexts, batches: [1], prefills: [], seconds, poolBytes: 1e9 };
  const { peak, decode } = await benchDevice("webgpu", syntheticModel(shape, format), plan);
  const kernels = new Set(decode[0]!.kernels.map(({ kernel }) => kernel));
  for (const kernel of [...kernels].filter((kernel) => PRODUCTS.test(kernel)).sort()) {
    const found = decode.map(({ kernels }) => kernels.find((time) => time.kernel === kernel)!);
    const { dispatches, work } = found[0]!;
    const each = median(found.map(({ microseconds }) => microseconds)) / 1e6 / dispatches;
    line(`${format} ${name}`, kernel, work!.bytes / dispatches, each, peak!.readBytesPerSecond);
  }
}
