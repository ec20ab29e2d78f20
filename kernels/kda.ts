/** The KDA mixer: residual += KDA(RMSNorm(residual)), and the slots' states advance. */
import type { Gpu } from "./gpu/gpu.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import {
  compileKdaChunkPrepare,
  kdaChunkPrepare,
  type KdaChunkPreparePipeline,
} from "./kda_chunk_prepare.ts";
import { compileKdaChunkScan, kdaChunkScan, type KdaChunkScanPipeline } from "./kda_chunk_scan.ts";
import { compileKdaGate, kdaGate, type KdaGatePipeline } from "./kda_gate.ts";
import { compileKdaOutput, kdaOutput, type KdaOutputPipeline } from "./kda_output.ts";
import { kdaWidths } from "./kda_shape.ts";
import type { KdaLayerState } from "./kda_state.ts";
import { compileKdaStep, kdaStep, type KdaStepPipeline } from "./kda_step.ts";
import type { Matrix } from "./matrix.ts";
import type { Projections } from "./projection.ts";
import { RmsNorm } from "./rms_norm.ts";
import { readWhole, scratch, vectorBuffer } from "./scratch.ts";
import { compileShortConv, shortConv, type ShortConvPipeline } from "./short_conv.ts";
import { CHUNK_ROWS, chunksMax, type StepTables } from "./step_buffers.ts";
import type { Capacity, ModelShape } from "./types.ts";

/** Weights of one layer; H heads, dk and dv channels of a key and a value. */
export interface KdaWeights {
  /** [1, hidden] f32. */
  readonly norm: Matrix;
  /** [H dk, hidden], [H dk, hidden], [H dv, hidden]: q | k | v, in one matrix or in three. */
  readonly qkv: readonly Matrix[];
  /** [channels, taps] f32. */
  readonly qConv: Matrix;
  readonly kConv: Matrix;
  readonly vConv: Matrix;
  /** [1, H], [1, H dk] f32. */
  readonly aLog: Matrix;
  readonly dtBias: Matrix;
  /** [rank, hidden], [H dk, rank]: the decay gate. */
  readonly fA: Matrix;
  readonly fB: Matrix;
  /** [H, hidden]: the write strength. */
  readonly b: Matrix;
  /** [rank, hidden], [H dv, rank]: the output gate. */
  readonly gA: Matrix;
  readonly gB: Matrix;
  /** [1, dv] f32. */
  readonly oNorm: Matrix;
  /** [hidden, H dv]. */
  readonly o: Matrix;
}

interface Pipelines {
  readonly norm: RmsNorm;
  readonly convolution: ShortConvPipeline;
  readonly gate: KdaGatePipeline;
  readonly prepare: KdaChunkPreparePipeline;
  readonly scan: KdaChunkScanPipeline;
  readonly step: KdaStepPipeline;
  readonly output: KdaOutputPipeline;
}

/** f32 activations of one layer, used by all layers in turn. */
interface Buffers {
  /** [rows][hidden]: the normalised residual. */
  readonly x: GPUBuffer;
  /** [rows][q | k | v]: before and after the convolution. */
  readonly projected: GPUBuffer;
  readonly mixed: GPUBuffer;
  /** [rows][rank]: inside the two low-rank gates. */
  readonly decayRank: GPUBuffer;
  readonly gateRank: GPUBuffer;
  /** [rows][H dk]: the decay gate's projection, retentions, or W of a chunk. */
  readonly retention: GPUBuffer;
  /** [rows][H]. */
  readonly beta: GPUBuffer;
  /** [rows][H dv]: the output gate before its sigmoid; the output. */
  readonly gate: GPUBuffer;
  readonly o: GPUBuffer;
  /** [chunks][H][16][16] and [chunks][H][dk]. */
  readonly scores: GPUBuffer;
  readonly kept: GPUBuffer;
}

export class KdaBlock {
  private constructor(
    private readonly projections: Projections,
    private readonly shape: ModelShape,
    private readonly pipelines: Pipelines,
    private readonly buffers: Buffers,
  ) {}

  /**
   * Compiles the kernels and allocates the activations of the largest step. The projections must be
   * prepared for the weights' formats before `encode`. Throws where the adapter is too small.
   */
  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
  ): Promise<KdaBlock> {
    const { keyDim, convolutionTaps } = shape.kda;
    const [norm, convolution, gate, prepare, scan, step, output] = await Promise.all([
      RmsNorm.create(gpu),
      compileShortConv(gpu, convolutionTaps),
      compileKdaGate(gpu),
      compileKdaChunkPrepare(gpu),
      compileKdaChunkScan(gpu, shape.kda, capacity.rows),
      compileKdaStep(gpu, keyDim),
      compileKdaOutput(gpu),
    ]);
    const pipelines = { norm, convolution, gate, prepare, scan, step, output };
    return new KdaBlock(projections, shape, pipelines, allocate(gpu, shape, capacity));
  }

  /** residual f32 [rowCount][hidden] += the mixer's output; the step's slots of `state` advance. */
  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepTables,
    weights: KdaWeights,
    state: KdaLayerState,
  ): void {
    this.#project(recorder, residual, step.rowCount, weights);
    this.#convolve(recorder, step, weights, state);
    this.#recur(recorder, step, weights, state);
    const { headCount, valueDim } = this.shape.kda;
    const { gate, o } = this.buffers;
    kdaOutput(
      recorder,
      this.pipelines.output,
      { gate: read(gate), weight: readWhole(weights.oNorm), o: write(o) },
      { headCount, valueDim, epsilon: this.shape.normEpsilon },
      step.rowCount,
    );
    const { hiddenSize } = this.shape;
    const values = headCount * valueDim;
    this.projections.project(
      recorder,
      weights.o,
      o,
      values,
      residual,
      hiddenSize,
      0,
      step.rowCount,
      true,
    );
  }

  /** Norm and everything that is linear in the normalised residual. */
  #project(
    recorder: Recorder,
    residual: GPUBuffer,
    rowCount: number,
    weights: KdaWeights,
  ): void {
    const { hiddenSize: hidden, normEpsilon } = this.shape;
    const { keys, values, mixed } = kdaWidths(this.shape.kda);
    const { x, projected, decayRank, gateRank, retention, beta, gate } = this.buffers;
    this.pipelines.norm.normalize(
      recorder,
      residual,
      hidden,
      vectorBuffer(weights.norm),
      x,
      hidden,
      hidden,
      rowCount,
      normEpsilon,
    );
    const project = (
      matrix: Matrix,
      from: GPUBuffer,
      to: GPUBuffer,
      stride: number,
      offset = 0,
    ) => {
      const { columns } = matrix.spec;
      this.projections.project(
        recorder,
        matrix,
        from,
        columns,
        to,
        stride,
        offset,
        rowCount,
        false,
      );
    };
    let offset = 0;
    for (const matrix of weights.qkv) {
      project(matrix, x, projected, mixed, offset);
      offset += matrix.spec.rows;
    }
    project(weights.b, x, beta, this.shape.kda.headCount);
    project(weights.fA, x, decayRank, weights.fA.spec.rows);
    project(weights.gA, x, gateRank, weights.gA.spec.rows);
    project(weights.fB, decayRank, retention, keys);
    project(weights.gB, gateRank, gate, values);
  }

  #convolve(
    recorder: Recorder,
    step: StepTables,
    weights: KdaWeights,
    state: KdaLayerState,
  ): void {
    const { keys, mixed } = kdaWidths(this.shape.kda);
    const { projected, mixed: target } = this.buffers;
    shortConv(
      recorder,
      this.pipelines.convolution,
      {
        u: read(projected),
        qTaps: readWhole(weights.qConv),
        kTaps: readWhole(weights.kConv),
        vTaps: readWhole(weights.vConv),
        chunks: step.chunks,
        tails: write(state.convolution),
        y: write(target),
      },
      {
        keyChannels: keys,
        channels: mixed,
        taps: this.shape.kda.convolutionTaps,
        tapStride: weights.qConv.stride,
      },
      step.chunkCount + step.decodeCount,
    );
  }

  /** Gates and the delta rule: in chunks where a sequence has several rows, else one step. */
  #recur(
    recorder: Recorder,
    step: StepTables,
    weights: KdaWeights,
    { recurrent }: KdaLayerState,
  ): void {
    const { kda: shape } = this.shape;
    const { gate, prepare, scan, step: single } = this.pipelines;
    const { mixed, retention, beta, scores, kept, o } = this.buffers;
    const { chunks, prefills, chunkCount, decodeCount, prefillCount } = step;
    const gated = { mixed: write(mixed), retention: write(retention) };
    kdaGate(
      recorder,
      gate,
      {
        aLog: readWhole(weights.aLog),
        dtBias: readWhole(weights.dtBias),
        ...gated,
        beta: write(beta),
      },
      { ...shape, mixedStride: kdaWidths(shape).mixed },
      step.rowCount,
    );
    const shared = { mixed: read(mixed), beta: read(beta), chunks };
    const advanced = { state: write(recurrent), o: write(o) };
    kdaChunkPrepare(
      recorder,
      prepare,
      { ...shared, ...gated, scores: write(scores), kept: write(kept) },
      shape,
      chunkCount,
    );
    const prepared = { w: read(retention), scores: read(scores), kept: read(kept), prefills };
    kdaChunkScan(recorder, scan, { ...shared, ...prepared, ...advanced }, shape, prefillCount);
    const decoded = { ...shared, retention: read(retention), ...advanced };
    kdaStep(recorder, single, decoded, shape, chunkCount, decodeCount);
  }
}

function allocate(gpu: Gpu, shape: ModelShape, capacity: Capacity): Buffers {
  const { headCount, keyDim, valueDim } = shape.kda;
  const { keys, values, mixed } = kdaWidths(shape.kda);
  const { rows } = capacity;
  const chunks = Math.max(1, chunksMax(capacity));
  const floats = (label: string, count: number) => scratch(gpu, `KDA ${label}`, count);
  // The published low ranks are the head's size.
  const rank = Math.max(keyDim, valueDim);
  return {
    x: floats("input", rows * shape.hiddenSize),
    projected: floats("projections", rows * mixed),
    mixed: floats("convolutions", rows * mixed),
    decayRank: floats("decay rank", rows * rank),
    gateRank: floats("gate rank", rows * rank),
    retention: floats("retentions", rows * keys),
    beta: floats("write strengths", rows * headCount),
    gate: floats("gate", rows * values),
    o: floats("output", rows * values),
    scores: floats("chunk scores", chunks * headCount * CHUNK_ROWS ** 2),
    kept: floats("chunk retentions", chunks * keys),
  };
}
