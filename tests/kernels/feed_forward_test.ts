import assert from "node:assert";
import {
  DenseBlock,
  type DenseWeights,
  MoeBlock,
  type MoeWeights,
} from "../../kernels/feed_forward.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { Projections } from "../../kernels/projection.ts";
import type { ModelShape } from "../../kernels/types.ts";
import type { FloatFormat } from "../../kernels/weight_preludes.ts";
import { feedForward, mixtureOfExperts } from "../reference/moe.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { CAPACITY } from "./capacity.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { shapeOf } from "./model_shape.ts";
import { assertClose, assertSameBits, FORMATS, randomMatrix } from "./weights.ts";

const SEED = 101;
/** Small enough that an expert spans several parts, and enough for several experts a part. */
const BINDING_LIMITS = [2_048, 20_000] as const;

async function prepared(gpu: Gpu): Promise<Projections> {
  const projections = await Projections.create(gpu, CAPACITY.rows);
  await projections.prepare(FORMATS);
  return projections;
}

/** Residual after `encode` of a copy of it, out of a guarded buffer. */
async function after(
  gpu: Gpu,
  residual: Float32Array,
  encode: (recorder: Recorder, residual: GPUBuffer) => void,
): Promise<Float32Array> {
  const output = guarded(gpu, residual.length);
  const buffer = upload(gpu, residual);
  const recorder = new Recorder(gpu);
  encode(recorder, buffer);
  recorder.copy(buffer, 0, output.buffer, output.offset, output.bytes);
  return await takeGuarded(gpu, output, recorder);
}

/** A gated feed-forward or a stack of them, with exact values for each. */
function randomGated(
  gpu: Gpu,
  random: () => number,
  format: FloatFormat,
  sizes: { readonly hidden: number; readonly width: number; readonly matrices: number },
  bindingLimitBytes: number = BINDING_LIMITS[0],
) {
  const { hidden, width, matrices } = sizes;
  const scale = { rowsPerScale: 13, columnsPerScale: 9 };
  const wish = { format, matrices, scale, bindingLimitBytes };
  const inward = { ...wish, rows: width, columns: hidden };
  const gate = randomMatrix(gpu, random, inward);
  const up = randomMatrix(gpu, random, inward);
  const down = randomMatrix(gpu, random, { ...wish, rows: hidden, columns: width });
  return {
    matrices: { gateUp: [gate.matrix, up.matrix], down: down.matrix },
    values: gate.values.map((_, i) => ({
      gate: gate.values[i]!,
      up: up.values[i]!,
      down: down.values[i]!,
    })),
  };
}

withGpu("DenseBlock agrees with the reference in every format", async (gpu) => {
  const random = randomSource(SEED);
  const shape = shapeOf({});
  const hidden = shape.hiddenSize;
  const block = await DenseBlock.create(gpu, await prepared(gpu), shape, CAPACITY);
  for (const format of FORMATS) {
    const sizes = { hidden, width: shape.denseIntermediateSize, matrices: 1 };
    const gated = randomGated(gpu, random, format, sizes);
    const norm = randomMatrix(gpu, random, { format: "f32", rows: 1, columns: hidden });
    const weights: DenseWeights = { ...gated.matrices, norm: norm.matrix };
    for (const rowCount of [1, 5, 70]) {
      const residual = normals(random, rowCount * hidden);
      const run = () =>
        after(gpu, residual, (recorder, buffer) => {
          block.encode(recorder, buffer, rowCount, weights);
        });
      const x = rmsNorm(residual, Float32Array.from(norm.values[0]!), shape.normEpsilon);
      const wanted = feedForward(gated.values[0]!, x, hidden).map((v, i) => v + residual[i]!);
      const found = await run();
      assertClose(found, wanted, hidden, `${format}, ${rowCount} rows`);
      assertSameBits(await run(), found, `${format}, ${rowCount} rows, again`);
    }
  }
});

/** A mixture's weights on the GPU and its reference on a residual. */
function randomMixture(
  gpu: Gpu,
  random: () => number,
  shape: ModelShape,
  format: FloatFormat,
  bindingLimitBytes: number,
) {
  const { hiddenSize: hidden, moe } = shape;
  const vector = (columns: number) =>
    randomMatrix(gpu, random, { format: "f32", rows: 1, columns });
  const norm = vector(hidden);
  const bias = vector(moe.expertCount);
  const router = randomMatrix(gpu, random, {
    format: "bf16",
    rows: moe.expertCount,
    columns: hidden,
  });
  const routed = { hidden, width: moe.intermediateSize, matrices: moe.expertCount };
  const experts = randomGated(gpu, random, format, routed, bindingLimitBytes);
  const single = { hidden, width: moe.sharedIntermediateSize, matrices: 1 };
  const shared = moe.sharedIntermediateSize === 0 ? null : randomGated(gpu, random, format, single);
  const weights: MoeWeights = {
    norm: norm.matrix,
    router: router.matrix,
    routerBias: bias.matrix,
    experts: experts.matrices,
    shared: shared?.matrices ?? null,
  };
  const reference = (residual: Float32Array) => {
    const x = rmsNorm(residual, Float32Array.from(norm.values[0]!), shape.normEpsilon);
    const mixture = {
      router: router.values[0]!,
      routerBias: bias.values[0]!,
      experts: experts.values,
      shared: shared?.values[0] ?? null,
    };
    const { y, ...routing } = mixtureOfExperts(moe, mixture, x, hidden);
    return { y: y.map((value, i) => value + residual[i]!), ...routing };
  };
  return { weights, reference };
}

async function checkMixture(
  gpu: Gpu,
  random: () => number,
  shape: ModelShape,
  format: FloatFormat,
  rowCounts: readonly number[],
  bindingLimitBytes: number = BINDING_LIMITS[0],
): Promise<void> {
  const { hiddenSize: hidden, moe } = shape;
  const block = await MoeBlock.create(gpu, await prepared(gpu), shape, CAPACITY, [format], 0);
  const { weights, reference } = randomMixture(gpu, random, shape, format, bindingLimitBytes);
  const run = (residual: Float32Array) =>
    after(gpu, residual, (recorder, buffer) => {
      block.encode(recorder, buffer, residual.length / hidden, weights, 0);
    });
  const residual = normals(random, Math.max(...rowCounts) * hidden);
  const all = await run(residual);
  let pairs = residual.length / hidden * moe.expertsPerToken;
  for (const rowCount of rowCounts) {
    const what = `${format}, ${rowCount} rows`;
    const some = residual.slice(0, rowCount * hidden);
    const wanted = reference(some);
    const found = await run(some);
    const count = rowCount * moe.expertsPerToken;
    pairs += count;
    const chosen = new Uint32Array((await download(gpu, block.chosen, count)).buffer);
    assert.deepEqual(chosen, wanted.experts, what);
    assertClose(await download(gpu, block.weights, count), wanted.weights, count, what);
    assertClose(found, wanted.y, hidden, what);
    assertSameBits(found, all.slice(0, found.length), `${what}, among others`);
  }
  const use = new Uint32Array((await download(gpu, block.expertUse, moe.expertCount)).buffer);
  assert.equal(use.reduce((sum, count) => sum + count, 0), pairs);
}

for (const format of FORMATS) {
  withGpu(
    `MoeBlock (expert_matvec, expert_matmul) equals the reference in ${format}, in any batch`,
    async (gpu) => {
      const random = randomSource(SEED + 1);
      await checkMixture(gpu, random, shapeOf({}), format, [1, 2, 9, 31, 40, 331]);
    },
  );
}

withGpu("MoeBlock takes other shapes, with and without a shared expert", async (gpu) => {
  const random = randomSource(SEED + 2);
  const { moe } = shapeOf({});
  const wide = { ...moe, expertCount: 40, expertsPerToken: 8, intermediateSize: 17 };
  const shapes = [
    { hiddenSize: 33, moe: { ...wide, sharedIntermediateSize: 0 } },
    // A shared expert wider than all routed ones of a token together.
    { hiddenSize: 120, moe: { ...moe, expertsPerToken: 1, sharedIntermediateSize: 99 } },
    { hiddenSize: 600, moe: { ...moe, renormalize: false, expertCount: 3, expertsPerToken: 3 } },
  ];
  for (const shape of shapes) {
    await checkMixture(gpu, random, shapeOf(shape), "bf16", [1, 7, 64], BINDING_LIMITS[1]);
  }
});
