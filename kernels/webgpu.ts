/** The webgpu device: the model's blocks as WGSL kernels, on any adapter. */
import { openTuned, type TuningChoice } from "./adapter_class.ts";
import type { Blocks } from "./blocks.ts";
import { DecodeBlocks } from "./decode.ts";
import { decodeFit } from "./decode_fit.ts";
import { rowStorage } from "./decode_shape.ts";
import { Embedding } from "./embedding.ts";
import { DenseBlock, MoeBlock } from "./feed_forward.ts";
import type { Compilation, Gpu } from "./gpu/gpu.ts";
import { Readback } from "./gpu/readback.ts";
import { Recorder } from "./gpu/recorder.ts";
import { type DispatchTime, Timestamps } from "./gpu/timestamps.ts";
import { KdaBlock } from "./kda.ts";
import { allocateKdaState, kdaStateFloats } from "./kda_state.ts";
import { allocateLatents, readLatents } from "./latent_cache.ts";
import { BEST_ROW_BYTES, Logits, readCandidates, showMasked, SUM_ROW_BYTES } from "./logits.ts";
import { MlaBlock } from "./mla.ts";
import { Projections } from "./projection.ts";
import { scratch } from "./scratch.ts";
import { CHUNK_ROWS, StepBuffers, type StepTables } from "./step_buffers.ts";
import { inInternalOrder, inPlanOrder, routedChoices } from "./step_order.ts";
import type {
  Capacity,
  KdaState,
  ModelShape,
  PendingStep,
  StepPlan,
  StepResult,
  TensorSpec,
} from "./types.ts";
import { WeightTable } from "./weight_table.ts";

/** Steps whose results may be outstanding at once. */
const STEPS_IN_FLIGHT = 2;

/** Bytes written before the queue is emptied: WebGPU keeps a copy of each write until then. */
const WRITE_WINDOW_BYTES = 64 << 20;

export class WebGpuDevice {
  readonly kind = "webgpu";
  readonly description: string;
  readonly pieceTokens = CHUNK_ROWS;
  readonly feedsTokens = true;
  readonly #recorder: Recorder;
  #weights: WeightTable | null = null;
  #blocks: Blocks | null = null;
  #unsentBytes = 0;
  #rowCount = 0;
  #logitRowCount = 0;
  /** Steps begun. */
  #steps = 0;
  /** Steps started whose results were not taken. */
  #underWay = 0;

  private constructor(private readonly gpu: Gpu, private readonly shape: ModelShape) {
    this.description = `${gpu.description}, tuned as ${gpu.tuning.adapterClass}`;
    this.#recorder = new Recorder(gpu);
  }

  /** Opens the adapter, software ones too. Throws an Error that says what is missing or wrong. */
  static async create(shape: ModelShape, tuning?: TuningChoice): Promise<WebGpuDevice> {
    return new WebGpuDevice(await openTuned(shape, tuning), shape);
  }

  get isSoftware(): boolean {
    return this.gpu.software;
  }

  get dispatchCount(): number {
    return this.#recorder.dispatchCount;
  }

  get compilation(): Compilation {
    return this.gpu.compilation;
  }

  get bufferBytesMax(): number {
    return this.gpu.bufferBytesMax;
  }

  get allocatedBytes(): number {
    return this.gpu.allocatedBytes;
  }

  declare(tensors: readonly TensorSpec[]): void {
    this.#weights = new WeightTable(this.gpu, tensors);
  }

  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    this.#declared().write(key, matrix, byteOffset, bytes);
    this.#countWritten(bytes.length);
  }

  writeScales(key: string, matrix: number, scales: Float32Array): void {
    this.#declared().writeScales(key, matrix, scales);
  }

  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    this.#declared().writeGroupScales(key, matrix, byteOffset, bytes);
    this.#countWritten(bytes.length);
  }

  async configure(capacity: Capacity): Promise<void> {
    this.#drainWrites();
    const { gpu, shape } = this;
    const weights = this.#declared();
    const formats = decodeFit(gpu, shape, weights);
    if (formats !== null) await weights.widen(gpu, this.#recorder, shape, formats);
    const projections = await Projections.create(gpu, Math.max(capacity.rows, capacity.logitRows));
    await projections.prepare(weights.formats(false), weights.groupedColumns());
    const { layers, hiddenSize, vocabularySize } = shape;
    const { slots, logitRows } = capacity;
    const states = layers.map(({ mixer }) =>
      mixer === "kda" ? allocateKdaState(gpu, shape.kda, slots) : undefined
    );
    const latents = layers.map(({ mixer }) =>
      mixer === "mla" ? allocateLatents(gpu, shape.mla, capacity) : undefined
    );
    const stateFloats = kdaStateFloats(shape.kda);
    const readbackBytes = 4 * Math.max(
      logitRows * vocabularySize,
      capacity.rows * hiddenSize,
      stateFloats.recurrent,
      stateFloats.convolution,
    );
    const resultBytes = Math.max(4, logitRows * (BEST_ROW_BYTES + SUM_ROW_BYTES));
    const [embedding, kda, mla, dense, moe, logits, readback, ...results] = await Promise.all([
      Embedding.create(gpu, capacity, weights.get("embed")),
      KdaBlock.create(gpu, projections, shape, capacity),
      MlaBlock.create(gpu, projections, shape, capacity, weights.kvBFormats()),
      DenseBlock.create(gpu, projections, shape, capacity),
      MoeBlock.create(
        gpu,
        projections,
        shape,
        capacity,
        weights.formats(true),
        weights.sharedCount(shape),
      ),
      Logits.create(gpu, projections, shape, capacity, rowStorage(weights.get("head"))),
      Readback.create(gpu, readbackBytes),
      ...Array.from({ length: STEPS_IN_FLIGHT }, () => Readback.create(gpu, resultBytes)),
    ]);
    const step = StepBuffers.create(gpu, capacity);
    const residual = scratch(gpu, "residual", capacity.rows * hiddenSize);
    const decode = formats === null
      ? null
      : await DecodeBlocks.create(gpu, shape, capacity, weights, formats, moe.expertUse);
    const blocks = { embedding, kda, mla, dense, moe, logits, decode, readback, results };
    this.#blocks = { ...blocks, step, residual, capacity, kdaStates: states, latents };
    gpu.seal();
    gpu.check();
  }

  zeroSlot(slot: number): void {
    const { kdaStates } = this.#ready();
    const floats = kdaStateFloats(this.shape.kda);
    for (const state of kdaStates) {
      if (state === undefined) continue;
      const recurrent = 4 * floats.recurrent;
      const convolution = 4 * floats.convolution;
      this.#recorder.clear(state.recurrent, slot * recurrent, recurrent);
      this.#recorder.clear(state.convolution, slot * convolution, convolution);
    }
  }

  async readState(layer: number, slot: number): Promise<KdaState> {
    const state = this.#ready().kdaStates[layer]!;
    const floats = kdaStateFloats(this.shape.kda);
    return {
      recurrent: await this.#floats(state.recurrent, slot * floats.recurrent, floats.recurrent),
      convolution: await this.#floats(
        state.convolution,
        slot * floats.convolution,
        floats.convolution,
      ),
    };
  }

  begin(plan: StepPlan): void {
    const { step, embedding, logits } = this.#ready();
    step.upload(plan);
    const { internalRows } = step;
    const feeds = plan.feeds === null ? null : inInternalOrder(plan.feeds, internalRows);
    embedding.setTokens(inInternalOrder(plan.tokens, internalRows), feeds);
    logits.setRows(plan.logits.map((wanted) => ({ ...wanted, row: internalRows[wanted.row]! })));
    this.#rowCount = plan.tokens.length;
    this.#logitRowCount = plan.logits.length;
    this.#steps++;
    this.#recorder.resetCount();
  }

  embed(): void {
    const { embedding, residual, decode, step, logits: { best } } = this.#ready();
    const { rowCount } = this.#rest();
    if (rowCount > 0) embedding.encode(this.#recorder, residual, rowCount, best);
    if (step.decodeCount === 0) return;
    decode?.embed(this.#recorder, residual, step, embedding.tokens, best);
  }

  kda(layer: number): void {
    const { kda, decode, residual, step, kdaStates } = this.#ready();
    const [weights, state] = [this.#declared().kda(layer), kdaStates[layer]!];
    const rest = this.#rest();
    if (rest.rowCount > 0) kda.encode(this.#recorder, residual, rest, weights, state);
    if (step.decodeCount > 0) decode?.kda(this.#recorder, residual, step, layer, weights, state);
  }

  mla(layer: number): void {
    const { mla, decode, residual, step, latents } = this.#ready();
    const [weights, cache] = [this.#declared().mla(layer), latents[layer]!];
    const rest = this.#rest();
    if (rest.rowCount > 0) mla.encode(this.#recorder, residual, rest, weights, cache);
    if (step.decodeCount > 0) decode?.mla(this.#recorder, residual, step, layer, weights, cache);
  }

  dense(layer: number): void {
    const { dense, decode, residual, step } = this.#ready();
    const weights = this.#declared().dense(layer);
    const { rowCount } = this.#rest();
    if (rowCount > 0) dense.encode(this.#recorder, residual, rowCount, weights);
    if (step.decodeCount > 0) decode?.dense(this.#recorder, residual, step, layer, weights);
  }

  moe(layer: number): void {
    const { moe, decode, residual, step } = this.#ready();
    const weights = this.#declared().moe(layer, this.shape);
    const index = this.#moeIndex(layer);
    const { rowCount } = this.#rest();
    if (rowCount > 0) moe.encode(this.#recorder, residual, rowCount, weights, index);
    if (step.decodeCount > 0) decode?.moe(this.#recorder, residual, step, layer, weights, index);
  }

  /** The part of the step that `decode` does not take. */
  #rest(): StepTables {
    const { decode, step } = this.#ready();
    return decode === null ? step : step.prefillPart;
  }

  logits(): void {
    const { logits, residual, decode, step } = this.#ready();
    if (this.#logitRowCount === 0) return;
    if (logits.hasMasks) {
      // The layers run while the masks are computed; unless the step before still does.
      if (this.#underWay === 0) this.#recorder.submit();
      logits.takeMasks();
    }
    const groups = decode?.last ?? null;
    const last = groups === null ? null : { groups, rowStart: step.prefillRows };
    logits.encode(this.#recorder, residual, this.#declared().logits(), last);
  }

  /**
   * Submits the step, unless the result of the one before was not taken: a wait for the GPU is one
   * for all that was submitted, so this one is held back until then.
   */
  finish(): PendingStep {
    const { results, logits, residual } = this.#ready();
    const [step, count] = [this.#steps, this.#logitRowCount];
    const result = results[step % results.length]!;
    const parts = [
      { buffer: logits.best, offset: 0, bytes: count * BEST_ROW_BYTES },
      { buffer: logits.sums, offset: 0, bytes: count * SUM_ROW_BYTES },
    ];
    // A step without logit rows is waited for too, so that steps never pile up.
    const copied = count > 0 ? parts : [{ buffer: residual, offset: 0, bytes: 4 }];
    result.record(this.#recorder, copied);
    if (this.#underWay++ === 0) this.#recorder.submit();
    else this.#recorder.finish();
    const bytes = copied.reduce((sum, part) => sum + part.bytes, 0);
    const { maskedRows } = logits;
    return { result: () => this.#result(step, count, result, bytes, maskedRows) };
  }

  async #result(
    step: number,
    count: number,
    results: Readback,
    byteCount: number,
    maskedRows: readonly number[],
  ): Promise<StepResult> {
    const bytes = await results.take(byteCount);
    if (--this.#underWay > 0) this.#recorder.submit();
    const { vocabularySize } = this.shape;
    return {
      ...readCandidates(bytes, count, vocabularySize, maskedRows),
      readRow: async (index) => {
        if (step !== this.#steps) {
          throw new Error(`read logit row ${index}: another step has begun`);
        }
        const { logits } = this.#ready();
        const row = await this.#floats(logits.logits, index * vocabularySize, vocabularySize);
        if (maskedRows.includes(index)) showMasked(row);
        return row;
      },
    };
  }

  async readResidual(): Promise<Float32Array> {
    const { residual, step } = this.#ready();
    const { hiddenSize } = this.shape;
    const rows = await this.#floats(residual, 0, this.#rowCount * hiddenSize);
    return inPlanOrder(rows, step.internalRows, hiddenSize);
  }

  async readRouting(): Promise<{ experts: Uint32Array; weights: Float32Array }> {
    const { moe, decode, step } = this.#ready();
    const { expertsPerToken } = this.shape.moe;
    const count = moe.choices * this.#rest().rowCount;
    const experts = new Uint32Array((await this.#floats(moe.chosen, 0, count)).buffer);
    const weights = await this.#floats(moe.weights, 0, count);
    const pairs = decode === null
      ? new Float32Array(0)
      : await this.#floats(decode.chosen, 0, 2 * moe.choices * step.decodeCount);
    const chosen = routedChoices(experts, weights, pairs, moe.choices, expertsPerToken);
    return {
      experts: inPlanOrder(chosen.experts, step.internalRows, expertsPerToken),
      weights: inPlanOrder(chosen.weights, step.internalRows, expertsPerToken),
    };
  }

  async takeExpertUse(): Promise<Uint32Array> {
    const { moe } = this.#ready();
    const layers = this.shape.layers.filter(({ feedForward }) => feedForward === "moe").length;
    const count = layers * moe.stackSize;
    const use = new Uint32Array((await this.#floats(moe.expertUse, 0, count)).buffer);
    if (count > 0) this.#recorder.clear(moe.expertUse, 0, 4 * count);
    return use.filter((_, index) => index % moe.stackSize < this.shape.moe.expertCount);
  }

  async readLatents(layer: number, pages: Uint32Array, count: number): Promise<Float32Array> {
    const { latents, capacity, readback } = this.#ready();
    return await readLatents(
      readback,
      this.#recorder,
      latents[layer]!,
      this.shape.mla,
      capacity,
      pages,
      count,
    );
  }

  /**
   * Times of the dispatches of what `run` records and waits for, in order; null where the adapter
   * has no timestamps.
   */
  async timeDispatches(run: () => Promise<void>): Promise<DispatchTime[] | null> {
    if (!this.gpu.device.features.has("timestamp-query")) return null;
    const timestamps = new Timestamps(this.gpu);
    this.#recorder.timestamps = timestamps;
    try {
      await run();
      return await timestamps.take();
    } finally {
      this.#recorder.timestamps = null;
      timestamps.destroy();
    }
  }

  destroy(): void {
    this.gpu.destroy();
  }

  /** Floats [start, start + count) of a buffer, after everything recorded so far. */
  async #floats(buffer: GPUBuffer, start: number, count: number): Promise<Float32Array> {
    if (count === 0) return new Float32Array(0);
    const { readback } = this.#ready();
    return new Float32Array(await readback.read(this.#recorder, buffer, 4 * start, 4 * count));
  }

  #countWritten(byteCount: number): void {
    this.#unsentBytes += byteCount;
    if (this.#unsentBytes >= WRITE_WINDOW_BYTES) this.#drainWrites();
  }

  /** Blocks until the GPU has taken all writes: Deno waits in the call, not in the promise. */
  #drainWrites(): void {
    this.gpu.device.queue.submit([]);
    this.gpu.device.queue.onSubmittedWorkDone().catch(() => {});
    this.#unsentBytes = 0;
    this.gpu.check();
  }

  #moeIndex(layer: number): number {
    const before = this.shape.layers.slice(0, layer);
    return before.filter(({ feedForward }) => feedForward === "moe").length;
  }

  #declared(): WeightTable {
    if (this.#weights === null) throw new Error("use the device: wanted declared weights first");
    return this.#weights;
  }

  #ready(): Blocks {
    if (this.#blocks === null) throw new Error("use the device: wanted configure first");
    return this.#blocks;
  }
}
