/**
 * decode_kda_gates and decode_kda_update, and decode_kda_step, which does the same for few rows:
 * both ways against f64, and the same bits from both.
 */
import assert from "node:assert";
import {
  compileDecodeKdaGates,
  decodeKdaGates,
  decodeKdaGatesBytes,
} from "../../kernels/decode_kda_gates.ts";
import {
  compileDecodeKdaStep,
  decodeKdaStep,
  decodeKdaStepBytes,
} from "../../kernels/decode_kda_step.ts";
import { compileDecodeKdaUpdate, decodeKdaUpdate } from "../../kernels/decode_kda_update.ts";
import { type RowFormat, xQuads } from "../../kernels/decode_shape.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { kdaWidths } from "../../kernels/kda_shape.ts";
import { Matrix } from "../../kernels/matrix.ts";
import type { KdaShape } from "../../kernels/types.ts";
import type { FloatFormat } from "../../kernels/weight_preludes.ts";
import { sigmoid } from "../reference/activations.ts";
import { dequantize, quantize } from "../reference/formats.ts";
import { kdaRecurrence, l2Normalize, logDecay } from "../reference/kda.ts";
import { matmul } from "../reference/matmul.ts";
import { normals, randomSource } from "../reference/random.ts";
import { download, type Guarded, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertClose, assertSameBits, columnsOf } from "./weights.ts";

interface Case {
  readonly shape: KdaShape;
  /** Columns of f_b and of g_b. */
  readonly ranks: readonly [number, number];
  readonly format: FloatFormat;
  readonly rows: number;
  /** Of the matrix that follows. */
  readonly main: RowFormat;
}

const CASES: readonly Case[] = [
  {
    shape: { headCount: 2, keyDim: 128, valueDim: 128, convolutionTaps: 4 },
    ranks: [128, 128],
    format: "bf16",
    rows: 9,
    main: "fp8",
  },
  {
    shape: { headCount: 3, keyDim: 32, valueDim: 64, convolutionTaps: 4 },
    ranks: [48, 144],
    format: "f32",
    rows: 5,
    main: "q4",
  },
];

/** Float matrices behind one another in one buffer, and their exact values. */
function together(
  gpu: Gpu,
  random: () => number,
  format: FloatFormat,
  sizes: readonly (readonly [rows: number, columns: number, deviation: number])[],
) {
  const specs = sizes.map(([rows, columns], index) => {
    return { key: `random ${index}`, format, matrices: 1, rows, columns, scale: null };
  });
  const matrices = Matrix.allocateTogether(gpu, "random", specs);
  const values = sizes.map(([rows, columns, deviation], index) => {
    const stored = quantize(normals(random, rows * columns, deviation), rows, columns, format);
    matrices[index]!.write(0, 0, stored.bytes);
    return dequantize(stored);
  });
  return { matrices, values };
}

function inputsOf(gpu: Gpu, { shape, ranks: [rank, gateRank], format, rows }: Case, seed: number) {
  const random = randomSource(seed);
  const { headCount, keyDim, valueDim } = shape;
  const { keys, values, mixed } = kdaWidths(shape);
  const low = together(gpu, random, format, [
    [keys, rank, 2 / Math.sqrt(rank)],
    [values, gateRank, 2 / Math.sqrt(gateRank)],
  ]);
  const vectors = together(gpu, random, "f32", [[1, headCount, 1], [1, keys, 1], [1, valueDim, 1]]);
  const [fB, gB] = low.matrices;
  const [aLog, dtBias, oNorm] = vectors.matrices;
  // The slots lie in another order than the rows, and one more has no row.
  const slots = Array.from({ length: rows }, (_, row) => rows - row);
  return {
    weights: { fB: fB!, gB: gB!, aLog: aLog!, dtBias: dtBias!, oNorm: oNorm! },
    low: low.values,
    vectors: vectors.values,
    mixed: normals(random, rows * (mixed + rank + gateRank + headCount)),
    slots,
    rows: Uint32Array.from(slots.flatMap((slot, row) => [row, 0, slot, 0])),
    state: normals(random, (rows + 1) * headCount * keyDim * valueDim),
  };
}

type Inputs = ReturnType<typeof inputsOf>;

interface Outputs {
  readonly gates: Float32Array | null;
  readonly groups: Float32Array;
  readonly state: Float32Array;
}

async function run(gpu: Gpu, test: Case, inputs: Inputs, isSeveral: boolean): Promise<Outputs> {
  const { shape, ranks, format, rows: rowCount, main } = test;
  const { keys, values } = kdaWidths(shape);
  const recorder = new Recorder(gpu);
  const out = ({ buffer, offset, bytes }: Guarded) => write(buffer, offset, bytes);
  const into = ({ buffer, offset, bytes }: Guarded) => read(buffer, offset, bytes);
  const gates = guarded(gpu, rowCount * (keys + values));
  const groups = guarded(gpu, rowCount * 4 * xQuads(main) * values / 32);
  const state = upload(gpu, inputs.state);
  const mixed = read(upload(gpu, inputs.mixed));
  const rows = read(upload(gpu, inputs.rows));
  const buffers = { mixed, rows, state: write(state), groups: out(groups) };
  const sizes = { rowCount, evenFirst: 0 };
  const { weights } = inputs;
  if (isSeveral) {
    const gatesPipeline = await compileDecodeKdaGates(gpu, format, shape.keyDim, ranks);
    const written = { mixed, gates: out(gates) };
    decodeKdaGates(recorder, gatesPipeline, weights, written, shape, rowCount);
    const pipeline = await compileDecodeKdaUpdate(gpu, main, shape.keyDim);
    const all = { ...buffers, gates: into(gates) };
    decodeKdaUpdate(recorder, pipeline, weights, all, shape, sizes);
  } else {
    const pipeline = await compileDecodeKdaStep(gpu, main, format, shape.keyDim, ranks);
    decodeKdaStep(recorder, pipeline, weights, buffers, shape, sizes);
  }
  return {
    groups: await takeGuarded(gpu, groups, recorder),
    state: await download(gpu, state, inputs.state.length),
    gates: isSeveral ? await takeGuarded(gpu, gates) : null,
  };
}

/** Retentions, output gates, states and y in f64. */
function wantedOf({ shape, ranks: [rank, gateRank], rows }: Case, inputs: Inputs) {
  const { headCount: heads, keyDim, valueDim } = shape;
  const { keys, values, mixed } = kdaWidths(shape);
  const stride = mixed + rank + gateRank + heads;
  const part = (width: number, offset: number) => columnsOf(inputs.mixed, stride, width, offset);
  const [fB, gB] = inputs.low;
  const [aLog, dtBias, oNorm] = inputs.vectors;
  const a = matmul(part(rank, mixed), fB!, keys);
  const g = logDecay(a, aLog!, dtBias!);
  const gateSums = matmul(part(gateRank, mixed + rank), gB!, values);
  const gate = gateSums.map(sigmoid);
  const q = l2Normalize(part(keys, 0), keyDim, 1 / Math.sqrt(keyDim));
  const k = l2Normalize(part(keys, keys), keyDim, 1);
  const v = part(values, 2 * keys);
  const beta = part(heads, mixed + rank + gateRank).map(sigmoid);
  const state = Float64Array.from(inputs.state);
  const y = new Float64Array(rows * values);
  for (const [row, slot] of inputs.slots.entries()) {
    const of = (x: Float64Array, width: number) => x.subarray(row * width, (row + 1) * width);
    const size = heads * keyDim * valueDim;
    const found = kdaRecurrence(
      { heads, keyDim, valueDim },
      of(q, keys),
      of(k, keys),
      of(v, values),
      of(g, keys),
      of(beta, heads),
      state.slice(slot * size, (slot + 1) * size),
    );
    state.set(found.state, slot * size);
    const own = found.o.map((o, c) => o * oNorm![c % valueDim]! * gate[row * values + c]!);
    y.set(own, row * values);
  }
  return { retention: g.map(Math.exp), gate, state, y };
}

/** y of fp8's groups [rows][9][groups], of whose quads the first eight hold it. */
function valuesOf(groups: Float32Array, rows: number, values: number): Float32Array {
  const count = values / 32;
  return Float32Array.from({ length: rows * values }, (_, index) => {
    const [row, column] = [Math.floor(index / values), index % values];
    const quad = Math.floor(column % 32 / 4);
    return groups[4 * ((row * 9 + quad) * count + Math.floor(column / 32)) + column % 4]!;
  });
}

for (const test of CASES) {
  const { shape, ranks, format, rows, main } = test;
  const heads = `${shape.headCount} heads of ${shape.keyDim} and ${shape.valueDim}`;
  withGpu(`KDA's gates and states, ${heads}, ranks ${ranks} in ${format}, ${main}`, async (gpu) => {
    const inputs = inputsOf(gpu, test, 91);
    const wanted = wantedOf(test, inputs);
    const few = await run(gpu, test, inputs, false);
    const several = await run(gpu, test, inputs, true);
    assertSameBits(several.state, few.state, "states");
    assertSameBits(several.groups, few.groups, "groups");
    const { keys, values } = kdaWidths(shape);
    const part = (width: number, offset: number) =>
      columnsOf(several.gates!, keys + values, width, offset);
    assertClose(part(keys, 0), wanted.retention, keys, "retentions");
    assertClose(part(values, keys), wanted.gate, values, "gates");
    assertClose(several.state, wanted.state, shape.keyDim * shape.valueDim, "states");
    if (main === "fp8") {
      assertClose(valuesOf(several.groups, rows, values), wanted.y, values, "y");
    }
  });
}

Deno.test("the published model's gates fit in the workgroup memory that every adapter has", () => {
  assert.ok(decodeKdaStepBytes(128, [128, 128]) <= 16 * 1_024);
  assert.ok(decodeKdaGatesBytes([128, 128]) <= 16 * 1_024);
});
