import assert from "node:assert";
import { ExpertProjections } from "../../kernels/expert_projection.ts";
import { DenseBlock, MoeBlock } from "../../kernels/feed_forward.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileGroupTokens, groupTokens, tileLimit } from "../../kernels/group_tokens.ts";
import { Projections } from "../../kernels/projection.ts";
import { compileQExpertMatmul, qExpertMatmul } from "../../kernels/q_expert_matmul.ts";
import { compileQuantizeRows, QuantizedRows, quantizeRows } from "../../kernels/quantize_rows.ts";
import { normalizedError } from "../reference/compare.ts";
import { roundToInt8Groups } from "../reference/formats.ts";
import { matmul } from "../reference/matmul.ts";
import { feedForward, mixtureOfExperts } from "../reference/moe.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { CAPACITY } from "./capacity.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { shapeOf } from "./model_shape.ts";
import {
  assertClose,
  assertSameBits,
  GROUPED_FORMATS,
  randomGroups,
  randomMatrix,
} from "./weights.ts";

const SEED = 20_261_126;
/** Squared error of int8 activations through three products, relative: 8 bits leave about 1e-4. */
const ROUNDING_ERROR = 1e-3;

/** What the stacks of a test are multiplied with. */
interface Case {
  readonly expertCount: number;
  readonly rows: number;
  readonly columns: number;
  readonly pairsPerXRow: number;
  readonly pairCount: number;
  readonly bindingLimitBytes: number;
}

function expertsOf(random: () => number, { pairCount, expertCount }: Case): Uint32Array {
  // Skewed, and expert 1 gets none.
  return Uint32Array.from({ length: pairCount }, () => {
    const expert = Math.floor(random() ** 2 * expertCount);
    return expert === 1 ? 0 : expert;
  });
}

/** Grouped pairs on the GPU, in tiles of `tileSize`. */
async function grouped(
  gpu: Gpu,
  recorder: Recorder,
  chosen: Uint32Array,
  test: Case,
  size: number,
) {
  const limit = tileLimit(test.pairCount, test.expertCount, size);
  const buffers = {
    experts: upload(gpu, chosen),
    order: gpu.buffer("order", 4 * test.pairCount),
    tiles: gpu.buffer("tiles", 16 * limit),
    expertUse: gpu.buffer("use", 4 * test.expertCount),
    useOffset: 0,
  };
  const pipeline = await compileGroupTokens(gpu, test.expertCount);
  groupTokens(recorder, pipeline, buffers, test.pairCount, size);
  return { ...buffers, tileLimit: limit, pairCount: test.pairCount };
}

function wantedOf(x: Float32Array, chosen: Uint32Array, test: Case, values: Float64Array[]) {
  const { columns, rows, pairsPerXRow } = test;
  const rounded = roundToInt8Groups(x, columns);
  const wanted = new Float64Array(test.pairCount * rows);
  chosen.forEach((expert, pair) => {
    const row = Math.floor(pair / pairsPerXRow);
    const part = rounded.subarray(row * columns, (row + 1) * columns);
    wanted.set(matmul(part, values[expert]!, rows), pair * rows);
  });
  return wanted;
}

withGpu("ExpertProjections (q_expert_matmul) equals the reference in every tile", async (gpu) => {
  const random = randomSource(SEED);
  const cases: Case[] = [
    {
      expertCount: 7,
      rows: 70,
      columns: 100,
      pairsPerXRow: 3,
      pairCount: 330,
      bindingLimitBytes: 1 << 20,
    },
    {
      expertCount: 5,
      rows: 33,
      columns: 64,
      pairsPerXRow: 1,
      pairCount: 41,
      bindingLimitBytes: 2_048,
    },
    {
      expertCount: 9,
      rows: 12,
      columns: 40,
      pairsPerXRow: 1,
      pairCount: 9,
      bindingLimitBytes: 3_000,
    },
  ];
  for (const format of GROUPED_FORMATS) {
    for (const test of cases) {
      const { expertCount, rows, columns, pairCount, pairsPerXRow } = test;
      const { matrix, values } = randomGroups(gpu, random, {
        ...test,
        format,
        matrices: expertCount,
      });
      const xRows = pairCount / pairsPerXRow;
      const x = normals(random, xRows * columns);
      const chosen = expertsOf(random, test);
      const experts = await ExpertProjections.create(gpu, [format], [{ rows: xRows, columns }]);
      let first: Float32Array | null = null;
      for (const tileSize of [4, 32, 64]) {
        const recorder = new Recorder(gpu);
        const y = gpu.buffer("test output", 4 * pairCount * rows);
        gpu.write(y, 0, new Float32Array(pairCount * rows).fill(NaN));
        const groups = await grouped(gpu, recorder, chosen, test, tileSize);
        const target = { x: upload(gpu, x), xStride: columns, y, yStride: rows, yOffset: 0 };
        experts.project(recorder, matrix, { ...groups, ...target, pairsPerXRow }, tileSize);
        const output = guarded(gpu, pairCount * rows);
        recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
        const found = await takeGuarded(gpu, output, recorder);
        const what = `${format}, ${JSON.stringify(test)}, tiles of ${tileSize}`;
        assertClose(found, wantedOf(x, chosen, test, values), rows, what);
        assertSameBits(found, first ??= found, what);
      }
    }
  }
});

withGpu("q_expert_matmul gives the same bits with the tiles of large GPUs", async (gpu) => {
  const random = randomSource(SEED + 1);
  const test: Case = {
    expertCount: 3,
    rows: 140,
    columns: 100,
    pairsPerXRow: 2,
    pairCount: 200,
    bindingLimitBytes: 1 << 20,
  };
  const { rows, columns, pairCount, pairsPerXRow } = test;
  const chosen = expertsOf(random, test);
  const x = normals(random, pairCount / pairsPerXRow * columns);
  const tile = { xRegisters: 8, wRegisters: 8, xThreads: 8, wThreads: 16 };
  const { matrix, values } = randomGroups(gpu, random, { ...test, format: "q4", matrices: 3 });
  const recorder = new Recorder(gpu);
  const rounded = QuantizedRows.allocate(gpu, "test", pairCount / pairsPerXRow, columns);
  const quantize = await compileQuantizeRows(gpu);
  const xRows = pairCount / pairsPerXRow;
  quantizeRows(recorder, quantize, upload(gpu, x), columns, rounded, columns, xRows);
  const groups = await grouped(gpu, recorder, chosen, test, 64);
  const y = gpu.buffer("test output", 4 * pairCount * rows);
  const target = { ...groups, y, yStride: rows, yOffset: 0, pairsPerXRow };
  qExpertMatmul(recorder, await compileQExpertMatmul(gpu, "q4", tile), matrix, rounded, target);
  const found = await download(gpu, y, pairCount * rows, recorder);
  assertClose(found, wantedOf(x, chosen, test, values), rows, "64 pairs a tile");
});

/** Gated weights on the GPU and, for each expert, their values. */
function randomGated(
  gpu: Gpu,
  random: () => number,
  format: "q8" | "q4",
  { width, hidden, matrices }: { width: number; hidden: number; matrices: number },
) {
  const inward = { format, rows: width, columns: hidden, matrices };
  const [gate, up] = [randomGroups(gpu, random, inward), randomGroups(gpu, random, inward)];
  const down = randomGroups(gpu, random, { format, rows: hidden, columns: width, matrices });
  return {
    matrices: { gateUp: [gate.matrix, up.matrix], down: down.matrix },
    values: gate.values.map((_, i) => ({
      gate: gate.values[i]!,
      up: up.values[i]!,
      down: down.values[i]!,
    })),
  };
}

/** Runs a block on normal residuals; `wanted`: what it adds, from the normalised residual. */
async function checkBlock(
  gpu: Gpu,
  random: () => number,
  norm: Float64Array,
  encode: (recorder: Recorder, residual: GPUBuffer, rowCount: number) => void,
  wanted: (x: Float64Array) => Float64Array,
): Promise<void> {
  for (const rowCount of [2, 70]) {
    const residual = normals(random, rowCount * norm.length);
    const [recorder, buffer] = [new Recorder(gpu), upload(gpu, residual)];
    encode(recorder, buffer, rowCount);
    const after = await download(gpu, buffer, residual.length, recorder);
    const added = after.map((value, i) => value - residual[i]!);
    const x = rmsNorm(residual, Float32Array.from(norm), shapeOf({}).normEpsilon);
    const error = normalizedError(added, wanted(x));
    assert.ok(error < ROUNDING_ERROR, `${rowCount} rows: ${error}`);
  }
}

withGpu("DenseBlock and MoeBlock run in q8 and q4", async (gpu) => {
  const random = randomSource(SEED + 2);
  const shape = shapeOf({});
  const { hiddenSize: hidden, moe } = shape;
  const projections = await Projections.create(gpu, CAPACITY.rows);
  await projections.prepare(["bf16", ...GROUPED_FORMATS], 2_000);
  const vector = (columns: number) =>
    randomMatrix(gpu, random, { format: "f32", rows: 1, columns });
  const [norm, bias] = [vector(hidden), vector(moe.expertCount)];
  const routerSize = { rows: moe.expertCount, columns: hidden };
  const router = randomMatrix(gpu, random, { format: "bf16", ...routerSize });
  for (const format of GROUPED_FORMATS) {
    const gated = (width: number, matrices: number) =>
      randomGated(gpu, random, format, { width, hidden, matrices });
    const single = gated(shape.denseIntermediateSize, 1);
    const experts = gated(moe.intermediateSize, moe.expertCount);
    const shared = gated(moe.sharedIntermediateSize, 1);
    const dense = await DenseBlock.create(gpu, projections, shape, CAPACITY);
    const mixture = await MoeBlock.create(gpu, projections, shape, CAPACITY, [format], 0);
    await checkBlock(gpu, random, norm.values[0]!, (recorder, residual, rowCount) => {
      dense.encode(recorder, residual, rowCount, { ...single.matrices, norm: norm.matrix });
    }, (x) => feedForward(single.values[0]!, x, hidden));
    const matrices = { norm: norm.matrix, router: router.matrix, routerBias: bias.matrix };
    const weights = { ...matrices, experts: experts.matrices, shared: shared.matrices };
    const values = { router: router.values[0]!, routerBias: bias.values[0]! };
    const reference = { ...values, experts: experts.values, shared: shared.values[0]! };
    await checkBlock(gpu, random, norm.values[0]!, (recorder, residual, rowCount) => {
      mixture.encode(recorder, residual, rowCount, weights, 0);
    }, (x) => mixtureOfExperts(moe, reference, x, hidden).y);
  }
});
