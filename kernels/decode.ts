/**
 * Sequences with one row, through fused kernels: few dispatches a layer, for weights in q8, q4 or
 * fp8.
 *
 * A kernel that ends a block writes what the next block reads: the residual stream times the weight
 * of the norm that follows, in groups of 32 (int8 for q8 and q4, f32 for fp8) with the squares of
 * each, and as f32. The norm's own factor is a number for the whole row, which the next kernel's
 * results are multiplied by. So no dispatch only normalises or quantises.
 *
 * KDA layer: projections with convolution; gates and delta rule, two dispatches for several rows;
 * output. MLA layer: projections; latent and absorbed query; attention; values; output.
 * Feed-forward: up, with the choice of experts, which has two of its own for several rows; down.
 */
import { decodeAbsorb } from "./decode_absorb.ts";
import { decodeAttention, splitsUpTo } from "./decode_attention.ts";
import { decodeDown } from "./decode_down.ts";
import { decodeEmbed } from "./decode_embed.ts";
import type { DecodeFormats } from "./decode_fit.ts";
import { decodeKdaGates } from "./decode_kda_gates.ts";
import { decodeKdaIn } from "./decode_kda_in.ts";
import { decodeKdaStep } from "./decode_kda_step.ts";
import { decodeKdaUpdate } from "./decode_kda_update.ts";
import { decodeMlaIn } from "./decode_mla_in.ts";
import { decodeOut, type DecodeOutPipeline, type NextBlock } from "./decode_out.ts";
import {
  allocateDecode,
  compileDecode,
  type DecodeBuffers,
  type DecodePipelines,
  type ExpertCounts,
  heldSplits,
  severalFor,
} from "./decode_parts.ts";
import { evenFirst, type RowFormat, xQuads } from "./decode_shape.ts";
import { DecodeUpBlock } from "./decode_up_block.ts";
import { decodeValues } from "./decode_values.ts";
import type { DenseWeights, MoeWeights } from "./feed_forward.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import type { KdaWeights } from "./kda.ts";
import type { KdaLayerState } from "./kda_state.ts";
import type { MlaWeights } from "./mla.ts";
import { readWhole } from "./scratch.ts";
import type { StepBuffers } from "./step_buffers.ts";
import type { Capacity, ModelShape } from "./types.ts";
import type { WeightTable } from "./weight_table.ts";

export class DecodeBlocks {
  readonly #even: number;
  /** What the last layer writes is in the order of the head's weights. */
  readonly #headEven: number;
  readonly #isHeadAlike: boolean;

  private constructor(
    private readonly shape: ModelShape,
    private readonly pageTokens: number,
    private readonly weights: WeightTable,
    /** Splits whose softmaxes are held at once. */
    private readonly heldSplits: number,
    private readonly counts: ExpertCounts,
    private readonly pipelines: DecodePipelines,
    private readonly buffers: DecodeBuffers,
    private readonly up: DecodeUpBlock,
    format: RowFormat,
  ) {
    this.#even = evenFirst(format);
    const head = weights.get("head").spec.format;
    this.#headEven = evenFirst(head);
    this.#isHeadAlike = xQuads(head) === xQuads(format);
  }

  /**
   * Compiles the kernels and allocates the activations. `formats`: what `decodeFit` found;
   * `expertUse`: as `MoeBlock` counts it. Throws where the adapter is too small.
   */
  static async create(
    gpu: Gpu,
    shape: ModelShape,
    capacity: Capacity,
    weights: WeightTable,
    formats: DecodeFormats,
    expertUse: GPUBuffer,
  ): Promise<DecodeBlocks> {
    const shared = weights.sharedCount(shape);
    const counts = {
      choices: shape.moe.expertsPerToken + shared,
      stackSize: shape.moe.expertCount + shared,
    };
    const embedFormat = weights.get("embed").spec.format;
    const pipelines = await compileDecode(gpu, shape, capacity, formats, counts, embedFormat);
    const splits = heldSplits(shape, capacity);
    const buffers = allocateDecode(gpu, shape, capacity, counts, splits, formats.main);
    const even = evenFirst(formats.main);
    const up = new DecodeUpBlock(shape, counts, pipelines, buffers, expertUse, even);
    return new DecodeBlocks(
      shape,
      capacity.pageTokens,
      weights,
      splits,
      counts,
      pipelines,
      buffers,
      up,
      formats.main,
    );
  }

  /** [decodeCount][choices] (expert, weight) of the last mixture of experts. */
  get chosen(): GPUBuffer {
    return this.buffers.chosen;
  }

  /**
   * After the last layer: [decodeCount][hidden] groups of the residual times the final norm's
   * weight, for the head; null where its format has other groups.
   */
  get last(): GPUBuffer | null {
    return this.#isHeadAlike ? this.buffers.x : null;
  }

  /**
   * The residual's rows f32 [rows][hidden] of sequences with one row from `tokens`, u32 [rows], and
   * what the first layer reads of them. `best`: of the step before, see decode_embed.wgsl.
   */
  embed(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    tokens: GPUBuffer,
    best: GPUBuffer,
  ): void {
    const { x, scaled } = this.buffers;
    const buffers = {
      tokens: read(tokens),
      norm: readWhole(this.weights.get("0.mixer_norm")),
      residual: write(residual),
      groups: write(x),
      scaled: write(scaled),
      best: read(best),
    };
    const { prefillRows: rowStart, decodeCount: rowCount } = step;
    const sizes = { rowStart, rowCount, evenFirst: this.#even };
    decodeEmbed(recorder, this.pipelines.embed, this.weights.get("embed"), buffers, sizes);
  }

  kda(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    layer: number,
    weights: KdaWeights,
    state: KdaLayerState,
  ): void {
    const { x, scaled, mixed, o } = this.buffers;
    const { kda: shape, normEpsilon: epsilon } = this.shape;
    decodeKdaIn(
      recorder,
      this.pipelines.kdaIn,
      weights,
      {
        x: read(x),
        scaled: read(scaled),
        rows: step.singles,
        tails: write(state.convolution),
        out: write(mixed),
      },
      shape,
      { rowCount: step.decodeCount, epsilon },
    );
    this.#advance(recorder, step, weights, state);
    this.#out(recorder, residual, step, this.pipelines.kdaOut, {
      matrix: weights.o,
      from: o,
      headDim: shape.valueDim,
      next: this.#afterMixer(layer),
      evenFirst: this.#even,
    });
  }

  /** Gates and delta rule: of several rows the gates first. */
  #advance(
    recorder: Recorder,
    { decodeCount: rowCount, singles: rows }: StepBuffers,
    weights: KdaWeights,
    state: KdaLayerState,
  ): void {
    const { kda: shape } = this.shape;
    const several = severalFor(this.pipelines, rowCount);
    const mixed = read(this.buffers.mixed);
    const buffers = { mixed, rows, state: write(state.recurrent), groups: write(this.buffers.o) };
    const sizes = { rowCount, evenFirst: this.#even };
    if (several === null) {
      return decodeKdaStep(recorder, this.pipelines.kdaStep, weights, buffers, shape, sizes);
    }
    const { gates } = this.buffers;
    const written = { mixed, gates: write(gates) };
    decodeKdaGates(recorder, several.kdaGates, weights, written, shape, rowCount);
    const all = { ...buffers, gates: read(gates) };
    decodeKdaUpdate(recorder, several.kdaUpdate, weights, all, shape, sizes);
  }

  mla(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    layer: number,
    weights: MlaWeights,
    latents: GPUBuffer,
  ): void {
    const { mla: shape, normEpsilon } = this.shape;
    const { pipelines } = this;
    const { x, scaled, projected, absorbed, sums, maxima, o } = this.buffers;
    const { decodeCount: rowCount, lastPosition, singles: rows, pages } = step;
    const inward = { x: read(x), scaled: read(scaled), projected: write(projected) };
    const sizes = { rowCount, epsilon: normEpsilon };
    decodeMlaIn(recorder, pipelines.mlaIn, weights, inward, sizes);
    const { pageTokens } = this;
    decodeAbsorb(
      recorder,
      pipelines.absorb,
      weights.kvB,
      {
        projected: read(projected),
        norm: readWhole(weights.kvNorm),
        rows,
        pages,
        absorbed: write(absorbed),
        latents: write(latents),
      },
      shape,
      { rowCount, pageTokens, epsilon: this.shape.latentNormEpsilon },
    );
    const context = { absorbed: read(absorbed), latents: read(latents), rows, pages };
    const softmaxes = { rows, sums: read(sums), maxima: read(maxima), groups: write(o) };
    const splits = splitsUpTo(lastPosition);
    const batches = Math.ceil(rowCount / Math.floor(this.heldSplits / splits));
    const batchRows = Math.ceil(rowCount / batches);
    for (let rowStart = 0; rowStart < rowCount; rowStart += batchRows) {
      const batch = { rowStart, rowCount: Math.min(batchRows, rowCount - rowStart), splits };
      decodeAttention(
        recorder,
        pipelines.attention,
        { ...context, sums: write(sums), maxima: write(maxima) },
        shape,
        { ...batch, pageTokens },
      );
      const sizes = { ...batch, evenFirst: this.#even };
      decodeValues(recorder, pipelines.values, weights.kvB, softmaxes, shape, sizes);
    }
    this.#out(recorder, residual, step, pipelines.mlaOut, {
      matrix: weights.o,
      from: o,
      headDim: 0,
      next: this.#afterMixer(layer),
      evenFirst: this.#even,
    });
  }

  dense(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    layer: number,
    weights: DenseWeights,
  ): void {
    this.up.dense(recorder, step.decodeCount, weights.gateUp[0]!, weights.norm);
    this.#out(recorder, residual, step, this.pipelines.denseDown, {
      matrix: weights.down,
      from: this.buffers.h,
      headDim: 0,
      next: { norm: this.#afterLayer(layer), router: null },
      evenFirst: this.#evenAfter(layer),
    });
  }

  /** `moeLayer`: index among the MoE layers, for the count of the experts' use. */
  moe(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    layer: number,
    { experts, routerBias }: MoeWeights,
    moeLayer: number,
  ): void {
    const { moe } = this.shape;
    const useOffset = moeLayer * this.counts.stackSize;
    this.up.moe(recorder, step.decodeCount, experts.gateUp[0]!, routerBias, useOffset);
    const { x, scaled, h, limbs, chosen } = this.buffers;
    decodeDown(
      recorder,
      this.pipelines.moeDown,
      experts.down,
      {
        x: read(h),
        residual: write(residual),
        groups: write(x),
        scaled: write(scaled),
        limbs: write(limbs),
      },
      read(chosen),
      this.#afterLayer(layer),
      {
        rowStart: step.prefillRows,
        rowCount: step.decodeCount,
        experts: moe.expertCount,
        evenFirst: this.#evenAfter(layer),
      },
    );
  }

  #out(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepBuffers,
    pipeline: DecodeOutPipeline,
    { matrix, from, headDim, next, evenFirst }: {
      readonly matrix: NextBlock["norm"];
      readonly from: GPUBuffer;
      readonly headDim: number;
      readonly next: NextBlock;
      readonly evenFirst: number;
    },
  ): void {
    const { x, scaled, limbs } = this.buffers;
    decodeOut(
      recorder,
      pipeline,
      matrix,
      {
        x: read(from),
        residual: write(residual),
        groups: write(x),
        scaled: write(scaled),
        limbs: write(limbs),
      },
      next,
      {
        rowStart: step.prefillRows,
        rowCount: step.decodeCount,
        headDim,
        epsilon: this.shape.normEpsilon,
        evenFirst,
      },
    );
  }

  #afterMixer(layer: number): NextBlock {
    const isMoe = this.shape.layers[layer]!.feedForward === "moe";
    return {
      norm: this.weights.get(`${layer}.ffn_norm`),
      router: isMoe ? this.weights.get(`${layer}.moe.router`) : null,
    };
  }

  #afterLayer(layer: number): NextBlock["norm"] {
    return this.weights.get(this.#isLast(layer) ? "norm" : `${layer + 1}.mixer_norm`);
  }

  #evenAfter(layer: number): number {
    return this.#isLast(layer) ? this.#headEven : this.#even;
  }

  #isLast(layer: number): boolean {
    return layer + 1 === this.shape.layers.length;
  }
}
