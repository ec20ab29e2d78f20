/** Runs KDA's kernels between the projections and the output norm over one step. */
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { compileKdaChunkPrepare, kdaChunkPrepare } from "../../kernels/kda_chunk_prepare.ts";
import { compileKdaChunkScan, kdaChunkScan } from "../../kernels/kda_chunk_scan.ts";
import { compileKdaGate, kdaGate } from "../../kernels/kda_gate.ts";
import { kdaWidths } from "../../kernels/kda_shape.ts";
import { compileKdaStep, kdaStep } from "../../kernels/kda_step.ts";
import { StepBuffers } from "../../kernels/step_buffers.ts";
import type { KdaShape } from "../../kernels/types.ts";
import { sigmoid } from "../reference/activations.ts";
import { kdaRecurrence, l2Normalize, logDecay } from "../reference/kda.ts";
import type { Reals } from "../reference/formats.ts";
import { normals, randomSource } from "../reference/random.ts";
import { download, type Guarded, guarded, takeGuarded, upload } from "./harness.ts";
import { planOf, reordered, type Segment, stepCapacity } from "./plans.ts";

export interface KdaInputs {
  /** After convolution and SiLU, [rows][keys], [rows][keys], [rows][values]. */
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  /** Projections of the gate and the write strength, [rows][keys], [rows][heads]. */
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly aLog: Float32Array;
  readonly dtBias: Float32Array;
  /** [slots][heads][keyDim][valueDim]. */
  readonly state: Float32Array;
}

/** Normal inputs; `gate` is the deviation of the gate's projection. */
export function kdaInputs(
  shape: KdaShape,
  rows: number,
  slots: number,
  seed: number,
  gate = 1,
): KdaInputs {
  const random = randomSource(seed);
  const { headCount, keyDim, valueDim } = shape;
  const { keys, values } = kdaWidths(shape);
  return {
    q: normals(random, rows * keys),
    k: normals(random, rows * keys),
    v: normals(random, rows * values),
    a: normals(random, rows * keys, gate),
    b: normals(random, rows * headCount, 2),
    aLog: normals(random, headCount),
    dtBias: normals(random, keys),
    state: normals(random, slots * headCount * keyDim * valueDim),
  };
}

/** Rows [start, start + count) of inputs, with another state if given. */
export function rowsOf(
  shape: KdaShape,
  inputs: KdaInputs,
  start: number,
  count: number,
  state: Float32Array = inputs.state,
): KdaInputs {
  const { keys, values } = kdaWidths(shape);
  const part = (x: Float32Array, width: number) => x.slice(start * width, (start + count) * width);
  return {
    ...inputs,
    q: part(inputs.q, keys),
    k: part(inputs.k, keys),
    v: part(inputs.v, values),
    a: part(inputs.a, keys),
    b: part(inputs.b, shape.headCount),
    state,
  };
}

export interface KdaOutputs {
  readonly o: Float32Array;
  readonly state: Float32Array;
  /** [chunks][heads][16][16], of segments with several rows. */
  readonly scores: Float32Array;
}

interface Buffers {
  readonly mixed: GPUBuffer;
  readonly retention: GPUBuffer;
  readonly beta: GPUBuffer;
  readonly state: GPUBuffer;
  readonly o: Guarded;
  readonly scores: Guarded;
  readonly kept: Guarded;
}

/** One step on the GPU. */
export async function runKda(
  gpu: Gpu,
  shape: KdaShape,
  segments: readonly Segment[],
  inputs: KdaInputs,
): Promise<KdaOutputs> {
  const { headCount, keyDim } = shape;
  const rowCount = inputs.b.length / headCount;
  const plan = planOf(segments);
  const slots = inputs.state.length / (headCount * keyDim * shape.valueDim);
  const step = StepBuffers.create(gpu, stepCapacity([plan], slots));
  step.upload(plan);
  const recorder = new Recorder(gpu);
  const chunks = Math.max(1, step.chunkCount);
  // The step's own order of the rows, and back.
  const ordered = (rows: Float32Array) => upload(gpu, reordered(rows, step.internalRows, false));
  const buffers: Buffers = {
    mixed: ordered(interleave(shape, inputs, rowCount)),
    retention: ordered(inputs.a),
    beta: ordered(inputs.b),
    state: upload(gpu, inputs.state),
    o: guarded(gpu, inputs.v.length),
    scores: guarded(gpu, chunks * headCount * 256),
    kept: guarded(gpu, chunks * headCount * keyDim),
  };
  kdaGate(
    recorder,
    await compileKdaGate(gpu),
    {
      aLog: read(upload(gpu, inputs.aLog)),
      dtBias: read(upload(gpu, inputs.dtBias)),
      mixed: write(buffers.mixed),
      retention: write(buffers.retention),
      beta: write(buffers.beta),
    },
    { headCount, keyDim, mixedStride: kdaWidths(shape).mixed },
    rowCount,
  );
  await recordRecurrence(gpu, recorder, shape, step, buffers);
  const o = await takeGuarded(gpu, buffers.o, recorder);
  await takeGuarded(gpu, buffers.kept);
  return {
    o: reordered(o, step.internalRows, true),
    state: await download(gpu, buffers.state, inputs.state.length),
    scores: step.chunkCount === 0 ? new Float32Array(0) : await takeGuarded(gpu, buffers.scores),
  };
}

/** Chunks and single steps, whichever the step's sequences need. */
async function recordRecurrence(
  gpu: Gpu,
  recorder: Recorder,
  shape: KdaShape,
  step: StepBuffers,
  { mixed, retention, beta, state, o, scores, kept }: Buffers,
): Promise<void> {
  const out = ({ buffer, offset, bytes }: Guarded) => write(buffer, offset, bytes);
  const into = ({ buffer, offset, bytes }: Guarded) => read(buffer, offset, bytes);
  const { chunks, prefills } = step;
  kdaChunkPrepare(
    recorder,
    await compileKdaChunkPrepare(gpu),
    {
      beta: read(beta),
      chunks,
      mixed: write(mixed),
      retention: write(retention),
      scores: out(scores),
      kept: out(kept),
    },
    shape,
    step.chunkCount,
  );
  const advanced = { mixed: read(mixed), chunks, state: write(state), o: out(o) };
  kdaChunkScan(
    recorder,
    await compileKdaChunkScan(gpu, shape, step.rowCount),
    { ...advanced, w: read(retention), scores: into(scores), kept: into(kept), prefills },
    shape,
    step.prefillCount,
  );
  kdaStep(
    recorder,
    await compileKdaStep(gpu, shape.keyDim),
    { ...advanced, retention: read(retention), beta: read(beta) },
    shape,
    step.chunkCount,
    step.decodeCount,
  );
}

/** [rows][q | k | v]. */
function interleave(shape: KdaShape, { q, k, v }: KdaInputs, rows: number): Float32Array {
  const { keys, values, mixed } = kdaWidths(shape);
  const all = new Float32Array(rows * mixed);
  for (let row = 0; row < rows; row++) {
    all.set(q.subarray(row * keys, (row + 1) * keys), row * mixed);
    all.set(k.subarray(row * keys, (row + 1) * keys), row * mixed + keys);
    all.set(v.subarray(row * values, (row + 1) * values), row * mixed + 2 * keys);
  }
  return all;
}

/** The same step in f64, sequence by sequence. */
export function referenceKda(
  shape: KdaShape,
  segments: readonly Segment[],
  inputs: KdaInputs,
): { o: Float64Array; state: Float64Array } {
  const sizes = { heads: shape.headCount, keyDim: shape.keyDim, valueDim: shape.valueDim };
  const slotLength = shape.headCount * shape.keyDim * shape.valueDim;
  const state = Float64Array.from(inputs.state);
  const o = new Float64Array(inputs.v.length);
  let row = 0;
  for (const { slot, rowCount } of segments) {
    const part = rowsOf(shape, inputs, row, rowCount);
    const result = kdaRecurrence(
      sizes,
      l2Normalize(part.q, shape.keyDim, shape.keyDim ** -0.5),
      l2Normalize(part.k, shape.keyDim, 1),
      part.v,
      logDecay(part.a, part.aLog, part.dtBias),
      wide(part.b).map(sigmoid),
      inputs.state.subarray(slot * slotLength, (slot + 1) * slotLength),
    );
    o.set(result.o, row * shape.headCount * shape.valueDim);
    state.set(result.state, slot * slotLength);
    row += rowCount;
  }
  return { o, state };
}

function wide(x: Reals): Float64Array {
  return Float64Array.from(x);
}
