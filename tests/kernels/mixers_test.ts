/** The KDA and MLA blocks against the whole mixers in f64, over steps that mix sequences. */
import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { KdaBlock, type KdaWeights as KdaMatrices } from "../../kernels/kda.ts";
import { allocateKdaState, kdaStateFloats } from "../../kernels/kda_state.ts";
import { allocateLatents, readLatents } from "../../kernels/latent_cache.ts";
import { Matrix } from "../../kernels/matrix.ts";
import { MlaBlock, type MlaWeights as MlaMatrices } from "../../kernels/mla.ts";
import { Projections } from "../../kernels/projection.ts";
import { StepBuffers } from "../../kernels/step_buffers.ts";
import type { Capacity, ModelShape, StepPlan } from "../../kernels/types.ts";
import type { FloatFormat } from "../../kernels/weight_preludes.ts";
import { dequantize, quantize } from "../reference/formats.ts";
import { kdaMixer, type KdaWeights, kdaZeroState } from "../reference/kda.ts";
import { mlaMixer, type MlaWeights } from "../reference/mla.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { download, upload, withGpu } from "./harness.ts";
import { planOf, reordered, type Segment } from "./plans.ts";
import { assertClose, assertSameBits } from "./weights.ts";

const HIDDEN = 120;
const SHAPE: ModelShape = {
  vocabularySize: 16,
  hiddenSize: HIDDEN,
  layers: [],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 3, keyDim: 24, valueDim: 40, convolutionTaps: 4 },
  mla: { headCount: 3, latentDim: 96, nopeDim: 40, sharedKeyDim: 24, valueDim: 56 },
  denseIntermediateSize: 16,
  moe: {
    expertCount: 2,
    expertsPerToken: 1,
    intermediateSize: 16,
    sharedIntermediateSize: 0,
    routedScale: 1,
    renormalize: true,
  },
};
const CAPACITY: Capacity = {
  slots: 5,
  pages: 40,
  pageTokens: 16,
  rows: 64,
  logitRows: 1,
  logitEdits: 1,
  sequences: 4,
  pagesPerSequence: 8,
  latentFormat: "f32",
};

/** A weight [rows, columns] on the GPU and its exact values. */
function weight(
  gpu: Gpu,
  random: () => number,
  format: FloatFormat,
  rows: number,
  columns: number,
  deviation = columns ** -0.5,
): { matrix: Matrix; values: Float64Array } {
  const scale = format === "fp8" ? { rowsPerScale: 32, columnsPerScale: 12 } : null;
  const spec = { key: "random", format, matrices: 1, rows, columns, scale };
  const grid = scale && {
    ...scale,
    values: new Float32Array(Math.ceil(rows / 32) * Math.ceil(columns / 12)).fill(0.01),
  };
  const stored = quantize(
    normals(random, rows * columns, deviation),
    rows,
    columns,
    format,
    grid,
  );
  const matrix = Matrix.allocate(gpu, spec);
  matrix.write(0, 0, stored.bytes);
  if (grid) matrix.writeScales(0, grid.values);
  return { matrix, values: dequantize(stored) };
}

type Made = Record<string, { matrix: Matrix; values: Float64Array }>;

function matricesOf<T>(made: Made): T {
  return Object.fromEntries(
    Object.entries(made).map(([name, { matrix }]) => [name, matrix]),
  ) as T;
}

function valuesOf<T>(made: Made): T {
  return Object.fromEntries(
    Object.entries(made).map(([name, { values }]) => [name, values]),
  ) as T;
}

function makeKda(gpu: Gpu, random: () => number, format: FloatFormat): Made {
  const { headCount, keyDim, valueDim, convolutionTaps } = SHAPE.kda;
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  const f32 = (rows: number, columns: number, deviation = 1) =>
    weight(gpu, random, "f32", rows, columns, deviation);
  const linear = (rows: number, columns: number) => weight(gpu, random, format, rows, columns);
  return {
    norm: f32(1, HIDDEN),
    q: linear(keys, HIDDEN),
    k: linear(keys, HIDDEN),
    v: linear(values, HIDDEN),
    qConv: f32(keys, convolutionTaps, 0.5),
    kConv: f32(keys, convolutionTaps, 0.5),
    vConv: f32(values, convolutionTaps, 0.5),
    aLog: f32(1, headCount),
    dtBias: f32(1, keys),
    fA: linear(keyDim, HIDDEN),
    fB: linear(keys, keyDim),
    b: linear(headCount, HIDDEN),
    gA: linear(valueDim, HIDDEN),
    gB: linear(values, valueDim),
    oNorm: f32(1, valueDim),
    o: linear(HIDDEN, values),
  };
}

function makeMla(gpu: Gpu, random: () => number, format: FloatFormat): Made {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = SHAPE.mla;
  const linear = (rows: number, columns: number) => weight(gpu, random, format, rows, columns);
  return {
    norm: weight(gpu, random, "f32", 1, HIDDEN, 1),
    q: linear(headCount * (nopeDim + sharedKeyDim), HIDDEN),
    kvA: linear(latentDim + sharedKeyDim, HIDDEN),
    kvNorm: weight(gpu, random, "f32", 1, latentDim, 1),
    kvB: linear(headCount * (nopeDim + valueDim), latentDim),
    o: linear(HIDDEN, headCount * valueDim),
  };
}

/** Steps that mix decode rows and prefill segments: [slot, rows] each. */
const STEPS: readonly (readonly (readonly [number, number])[])[] = [
  [[3, 21]],
  [[3, 1], [0, 2]],
  [[0, 1], [3, 1], [4, 40]],
  [[4, 1], [3, 16], [0, 17], [1, 1]],
  [[1, 1]],
];

const PAGES: Readonly<Record<number, Uint32Array>> = {
  0: Uint32Array.of(17, 2, 39),
  1: Uint32Array.of(5),
  3: Uint32Array.of(8, 30, 1),
  4: Uint32Array.of(12, 11, 10),
};

/** Plans of STEPS, with positions that go on from step to step. */
function plans(): StepPlan[] {
  const past = new Map<number, number>();
  return STEPS.map((step) =>
    planOf(step.map(([slot, rowCount]): Segment => {
      const before = past.get(slot) ?? 0;
      past.set(slot, before + rowCount);
      const pages = PAGES[slot]!.slice(0, Math.ceil((before + rowCount) / CAPACITY.pageTokens));
      return { slot, rowCount, past: before, pages };
    }))
  );
}

/** Runs the steps; `encode` records one block. Returns the residuals after it, step by step. */
async function runSteps(
  gpu: Gpu,
  residuals: readonly Float32Array[],
  encode: (recorder: Recorder, residual: GPUBuffer, step: StepBuffers) => void,
): Promise<Float32Array[]> {
  const step = StepBuffers.create(gpu, CAPACITY);
  const found: Float32Array[] = [];
  for (const [index, plan] of plans().entries()) {
    const recorder = new Recorder(gpu);
    step.upload(plan);
    const residual = upload(gpu, reordered(residuals[index]!, step.internalRows, false));
    encode(recorder, residual, step);
    const after = await download(gpu, residual, residuals[index]!.length, recorder);
    found.push(reordered(after, step.internalRows, true));
  }
  return found;
}

function residualsOf(random: () => number): Float32Array[] {
  return plans().map((plan) => normals(random, plan.tokens.length * HIDDEN));
}

for (const format of ["bf16", "fp8", "f32"] as const) {
  withGpu(`KdaBlock agrees with the mixer in f64, ${format}`, async (gpu) => {
    const random = randomSource(900);
    const made = makeKda(gpu, random, format);
    const residuals = residualsOf(random);
    const projections = await Projections.create(gpu, CAPACITY.rows);
    await projections.prepare([format]);
    const block = await KdaBlock.create(gpu, projections, SHAPE, CAPACITY);
    const run = async () => {
      const state = allocateKdaState(gpu, SHAPE.kda, CAPACITY.slots);
      const { q, k, v, ...rest } = matricesOf<Record<"q" | "k" | "v", Matrix> & KdaMatrices>(made);
      const matrices = { ...rest, qkv: [q, k, v] };
      const found = await runSteps(gpu, residuals, (recorder, residual, step) => {
        block.encode(recorder, residual, step, matrices, state);
      });
      return { found, state };
    };
    const { found, state } = await run();
    const weights = valuesOf<KdaWeights & { norm: Float64Array }>(made);
    const { headCount: heads, keyDim, valueDim, convolutionTaps } = SHAPE.kda;
    const sizes = { heads, keyDim, valueDim };
    const states = Array.from(
      { length: CAPACITY.slots },
      () => kdaZeroState(sizes, convolutionTaps),
    );
    for (const [index, plan] of plans().entries()) {
      const wanted = Float64Array.from(residuals[index]!);
      for (const { slot, rowStart, rowCount } of plan.sequences) {
        const rows = wanted.subarray(rowStart * HIDDEN, (rowStart + rowCount) * HIDDEN);
        const x = rmsNorm(rows, weights.norm, SHAPE.normEpsilon);
        const result = kdaMixer(sizes, weights, x, HIDDEN, states[slot]!, SHAPE.normEpsilon);
        states[slot] = result.state;
        rows.forEach((value, i) => rows[i] = value + result.y[i]!);
      }
      assertClose(found[index]!, wanted, HIDDEN, `step ${index}`);
    }
    const floats = kdaStateFloats(SHAPE.kda);
    for (const name of ["recurrent", "convolution"] as const) {
      const length = floats[name];
      const all = await download(gpu, state[name], CAPACITY.slots * length);
      for (let slot = 0; slot < CAPACITY.slots; slot++) {
        const part = all.slice(slot * length, (slot + 1) * length);
        assertClose(part, states[slot]![name], length, `${name} of slot ${slot}`);
      }
    }
    const again = await run();
    again.found.forEach((rows, index) => assertSameBits(rows, found[index]!, "second run"));
  });
}

for (const [format, latentFormat] of [["bf16", "f32"], ["fp8", "f32"], ["f32", "f16"]] as const) {
  withGpu(
    `MlaBlock agrees with the mixer in f64, ${format}, latents ${latentFormat}`,
    async (gpu) => {
      const random = randomSource(901);
      const made = makeMla(gpu, random, format);
      const residuals = residualsOf(random);
      const capacity = { ...CAPACITY, latentFormat };
      const projections = await Projections.create(gpu, capacity.rows);
      await projections.prepare([format]);
      const block = await MlaBlock.create(gpu, projections, SHAPE, capacity, [format]);
      const latents = allocateLatents(gpu, SHAPE.mla, capacity);
      const matrices = matricesOf<MlaMatrices>(made);
      const found = await runSteps(gpu, residuals, (recorder, residual, step) => {
        block.encode(recorder, residual, step, matrices, latents);
      });
      const weights = valuesOf<MlaWeights & { norm: Float64Array }>(made);
      const sizes = { ...SHAPE.mla, heads: SHAPE.mla.headCount };
      const width = SHAPE.mla.latentDim + SHAPE.mla.sharedKeyDim;
      const readback = await Readback.create(gpu, 1 << 16);
      const seen = new Map<number, Float64Array>();
      for (const [index, plan] of plans().entries()) {
        const wanted = Float64Array.from(residuals[index]!);
        for (const { slot, rowStart, rowCount, past } of plan.sequences) {
          const rows = wanted.subarray(rowStart * HIDDEN, (rowStart + rowCount) * HIDDEN);
          const x = rmsNorm(rows, weights.norm, SHAPE.normEpsilon);
          const before = seen.get(slot) ?? new Float64Array(0);
          // An f16 entry is one of two neighbours where f32 and f64 round apart: attend over what
          // the cache holds, and compare that with the reference within half a step.
          const cached = await readLatents(
            readback,
            new Recorder(gpu),
            latents,
            SHAPE.mla,
            capacity,
            PAGES[slot]!,
            past + rowCount,
          );
          let next = before.length;
          const store = (value: number) => {
            const stored = cached[next++]!;
            const step = latentFormat === "f16" ? 2 ** -11 + 1e-5 : 1e-5;
            assert.ok(
              Math.abs(stored - value) <= step * Math.abs(value) + 1e-5,
              `${stored} ${value}`,
            );
            return stored;
          };
          const epsilon = SHAPE.latentNormEpsilon;
          const result = mlaMixer(sizes, weights, x, HIDDEN, before, epsilon, store);
          assert.equal(result.latents.length, (past + rowCount) * width);
          seen.set(slot, result.latents);
          rows.forEach((value, i) => rows[i] = value + result.y[i]!);
        }
        assertClose(found[index]!, wanted, HIDDEN, `step ${index}`);
      }
    },
  );
}

withGpu("allocateKdaState() names the slots that fit", (gpu) => {
  assert.throws(
    () => allocateKdaState(gpu, { ...SHAPE.kda, headCount: 4_096 }, 100_000),
    /wanted at most \d+ slots, which one binding of \d+ bytes holds, found 100000/,
  );
  return Promise.resolve();
});

withGpu("StepBuffers refuses plans that would race or read outside", (gpu) => {
  const step = StepBuffers.create(gpu, CAPACITY);
  const refused: readonly [readonly Segment[], RegExp][] = [
    [[{ slot: 0, rowCount: 65 }], /begin a step: wanted at most 64 rows, found 65/],
    [[{ slot: 5, rowCount: 1 }], /wanted slots below 5, found 5/],
    [[{ slot: 1, rowCount: 1 }, { slot: 1, rowCount: 1 }], /wanted each slot once/],
    [[{ slot: 1, rowCount: 1, past: 16 }], /wanted pages for 17 tokens, found 1/],
    [[{ slot: 1, rowCount: 1, pages: Uint32Array.of(40) }], /wanted pages below 40, found 40/],
    [[{ slot: 1, rowCount: 1, pages: new Uint32Array(9) }], /wanted at most 8 pages a sequence/],
    [[0, 1, 2, 3, 4].map((slot) => ({ slot, rowCount: 1 })), /wanted at most 4 sequences, found 5/],
  ];
  for (const [segments, message] of refused) {
    assert.throws(() => step.upload(planOf(segments)), message);
  }
  assert.throws(
    () => step.upload({ ...planOf([{ slot: 0, rowCount: 2 }]), tokens: new Uint32Array(3) }),
    /wanted sequences over all 3 rows, found 2/,
  );
  return Promise.resolve();
});
