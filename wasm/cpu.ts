/**
 * The cpu device: every block of the model in WebAssembly SIMD, on the calling thread and its
 * helpers. Satisfies `Device` of `runtime/model/device.ts`, where each method is described.
 */
import { maskLogits } from "./bit_mask.ts";
import { type CpuModule, type CpuVariant, loadModule, preferredVariant } from "./cpu_module.ts";
import { checkCapacity, checkPages, checkPlan, checkSlot } from "./cpu_plan.ts";
import { checkShape, checkTensors } from "./cpu_tensors.ts";
import { HelperThreads } from "./cpu_threads.ts";
import type {
  Capacity,
  KdaState,
  LogitEdits,
  ModelShape,
  PendingStep,
  StepPlan,
  TensorSpec,
} from "./cpu_types.ts";

/** wasm32 addresses. */
const ADDRESS_BYTES = 2 ** 32;
/** Left for the code's own data, argument copies and allocator overhead. */
const RESERVED_BYTES = 64 * 2 ** 20;
/** Longest piece copied into WebAssembly memory at once. */
const PIECE_BYTES = 1 << 20;

const FORMAT_CODES = { f32: 0, f16: 1, bf16: 2, fp8: 3, q8: 4, q4: 5 } as const;
const FORMAT_BYTES = { f32: 4, f16: 2, bf16: 2, fp8: 1, q8: 1, q4: 0.5 } as const;
/** Columns of a group of q8 and q4. */
const GROUP = 32;

/** Bytes held by the live devices of each build, which share one memory. */
const heldBytes = new Map<CpuVariant, number>();

export class CpuDevice {
  readonly kind = "cpu";
  readonly description: string;
  readonly isSoftware = false;
  /** Each row is computed by itself. */
  readonly pieceTokens = 1;
  /** A step has run when the next one begins: nothing would be gained. */
  readonly feedsTokens = false;
  /** The CPU records no dispatches. */
  readonly dispatchCount = 0;

  readonly #shape: ModelShape;
  readonly #variant: CpuVariant;
  readonly #module: CpuModule;
  readonly #cpu: InstanceType<CpuModule["bindings"]["Cpu"]>;
  readonly #tensors = new Map<string, TensorSpec>();
  readonly #threads: number;
  readonly #helpers: HelperThreads;
  #capacity: Capacity | null = null;
  #plan: StepPlan | null = null;
  /** Of the step's logit rows. */
  #masks: readonly (Uint32Array | null)[] = [];
  readonly compilation = { kernels: 0, shaderSeconds: 0, pipelineSeconds: 0 };
  readonly bufferBytesMax = Infinity;
  #allocatedBytes = 0;
  #destroyed = false;

  /**
   * `variant`: which build; by default the faster one that the engine runs. `threads`: how many
   * compute, the calling one included.
   */
  constructor(shape: ModelShape, variant: CpuVariant = preferredVariant(), threads = 1) {
    checkShape(shape);
    this.#shape = shape;
    this.#threads = threads;
    this.#variant = variant;
    this.#module = loadModule(variant);
    this.description = (variant === "relaxed-simd" ? "WASM relaxed SIMD" : "WASM SIMD128") +
      (threads === 1 ? "" : `, ${threads} threads`);
    const { kda, mla, moe } = shape;
    this.#cpu = new this.#module.bindings.Cpu(
      Uint32Array.of(
        ...[shape.vocabularySize, shape.hiddenSize],
        ...[kda.headCount, kda.keyDim, kda.valueDim, kda.convolutionTaps],
        ...[mla.headCount, mla.latentDim, mla.nopeDim, mla.sharedKeyDim, mla.valueDim],
        ...[moe.expertCount, moe.expertsPerToken, moe.renormalize ? 1 : 0],
      ),
      Float32Array.of(shape.normEpsilon, shape.latentNormEpsilon, moe.routedScale),
      Uint8Array.from(
        shape.layers,
        (layer) => (layer.mixer === "mla" ? 1 : 0) | (layer.feedForward === "moe" ? 2 : 0),
      ),
    );
    const { module, memory } = this.#module;
    this.#helpers = new HelperThreads(this.#cpu, threads - 1, { variant, module, memory });
  }

  /** Helper threads that have joined: see `HelperThreads`. */
  get helperCount(): number {
    return this.#helpers.count;
  }

  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  declare(tensors: readonly TensorSpec[]): void {
    this.#alive("declare");
    if (this.#tensors.size > 0) throw new Error("declare tensors: declared before");
    checkTensors(this.#shape, tensors);
    const { matrixBytes } = this.#module.bindings;
    let bytes = 0;
    for (const { format, matrices, rows, columns, scale } of tensors) {
      const columnsPerScale = Math.min(scale?.columnsPerScale ?? columns, columns);
      bytes += matrices * matrixBytes(FORMAT_CODES[format], rows, columns, columnsPerScale);
    }
    this.#reserve("declare tensors", bytes);
    for (const { key, format, matrices, rows, columns, scale } of tensors) {
      this.#cpu.declare(
        key,
        FORMAT_CODES[format],
        matrices,
        rows,
        columns,
        Math.min(scale?.rowsPerScale ?? rows, rows),
        Math.min(scale?.columnsPerScale ?? columns, columns),
      );
    }
    for (const tensor of tensors) this.#tensors.set(tensor.key, tensor);
  }

  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const { format, rows, columns } = this.#loading("write", key, matrix);
    const grouped = format === "q8" || format === "q4";
    const size = FORMAT_BYTES[format];
    const stored = grouped ? Math.ceil(columns / GROUP) * GROUP : columns;
    checkPiece(`write tensor "${key}"`, "elements", byteOffset, bytes, {
      size: Math.max(1, size),
      limit: rows * stored * size,
    });
    for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
      const piece = bytes.subarray(start, start + PIECE_BYTES);
      this.#cpu.write(key, matrix, byteOffset + start, piece);
    }
  }

  writeScales(key: string, matrix: number, scales: Float32Array): void {
    const { rows, columns, scale } = this.#loading("write scales of", key, matrix);
    const wanted = scale === null
      ? 0
      : Math.ceil(rows / scale.rowsPerScale) * Math.ceil(columns / scale.columnsPerScale);
    if (scales.length !== wanted) {
      throw new Error(
        `write scales of tensor "${key}": wanted ${wanted}, found ${scales.length}`,
      );
    }
    this.#cpu.writeScales(key, matrix, scales);
  }

  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const { format, rows, columns } = this.#loading("write group scales of", key, matrix);
    if (format !== "q8" && format !== "q4") {
      throw new Error(`write group scales of tensor "${key}": wanted q8 or q4, found ${format}`);
    }
    const rowBytes = 4 * Math.ceil(columns / GROUP / 2);
    const action = `write group scales of tensor "${key}"`;
    const unit = { size: rowBytes, limit: rows * rowBytes };
    checkPiece(action, "rows", byteOffset, bytes, unit);
    this.#cpu.writeGroupScales(key, matrix, byteOffset, bytes);
  }

  timeDispatches(): Promise<null> {
    return Promise.resolve(null);
  }

  // deno-lint-ignore require-await -- the seam is asynchronous: other devices build pipelines here
  async configure(capacity: Capacity): Promise<void> {
    this.#alive("configure");
    if (this.#capacity !== null) throw new Error("configure device: configured before");
    if (this.#tensors.size === 0) throw new Error("configure device: no tensors are declared");
    checkCapacity(capacity);
    const bounds = Uint32Array.of(
      ...[capacity.slots, capacity.pages, capacity.pageTokens, capacity.rows],
      ...[capacity.logitRows, capacity.latentFormat === "f16" ? 1 : 0, this.#threads],
    );
    this.#reserve("configure device", this.#cpu.configureBytes(bounds));
    this.#cpu.configure(bounds);
    this.#capacity = capacity;
  }

  zeroSlot(slot: number): void {
    checkSlot("zero slot", slot, this.#ready("zero slot"));
    this.#cpu.zeroSlot(slot);
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async readState(layer: number, slot: number): Promise<KdaState> {
    const action = `read state of layer ${layer}`;
    checkSlot(action, slot, this.#ready(action));
    this.#mixer(action, layer, "kda");
    return {
      recurrent: this.#cpu.recurrentState(layer, slot),
      convolution: this.#cpu.convolutionState(layer, slot),
    };
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async readLatents(layer: number, pages: Uint32Array, count: number): Promise<Float32Array> {
    const action = `read latents of layer ${layer}`;
    checkPages(action, pages, count, this.#ready(action));
    this.#mixer(action, layer, "mla");
    return this.#cpu.latents(layer, pages, count);
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async readResidual(): Promise<Float32Array> {
    this.#step("read residual");
    return this.#cpu.residual();
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async readRouting(): Promise<{ experts: Uint32Array; weights: Float32Array }> {
    this.#step("read routing");
    return { experts: this.#cpu.routedExperts(), weights: this.#cpu.routedWeights() };
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async takeExpertUse(): Promise<Uint32Array> {
    this.#ready("take expert use");
    return this.#cpu.takeExpertUse();
  }

  begin(plan: StepPlan): void {
    checkPlan(plan, this.#ready("begin step"), this.#shape);
    const pageCount = plan.sequences.reduce((count, { pages }) => count + pages.length, 0);
    const sequences = new Uint32Array(plan.sequences.length * 5);
    const pages = new Uint32Array(pageCount);
    let page = 0;
    plan.sequences.forEach((sequence, i) => {
      const { slot, rowStart, rowCount, past } = sequence;
      sequences.set([slot, rowStart, rowCount, past, page], i * 5);
      pages.set(sequence.pages, page);
      page += sequence.pages.length;
    });
    const logitRows = Uint32Array.from(plan.logits, ({ row }) => row);
    this.#cpu.begin(plan.tokens, sequences, pages, logitRows);
    this.#plan = plan;
  }

  embed(): void {
    this.#step("embed");
    this.#cpu.embed();
  }

  kda(layer: number): void {
    this.#step("run kda");
    this.#mixer("run kda", layer, "kda");
    this.#cpu.mix(layer);
  }

  mla(layer: number): void {
    this.#step("run mla");
    this.#mixer("run mla", layer, "mla");
    this.#cpu.mix(layer);
  }

  dense(layer: number): void {
    this.#step("run dense");
    this.#feedForward(layer, "dense");
    this.#cpu.feed(layer);
  }

  moe(layer: number): void {
    this.#step("run moe");
    this.#feedForward(layer, "moe");
    this.#cpu.feed(layer);
  }

  logits(): void {
    const { logits } = this.#step("run logits");
    this.#cpu.logits();
    this.#masks = logits.map(({ mask }) => mask?.()?.slice() ?? null);
  }

  /** The step has run by now: each block computes when it is called. */
  finish(): PendingStep {
    const plan = this.#step("finish step");
    const nonFinite = this.#cpu.nonFinite();
    const result = { nonFinite, candidates: null, readRow: (i: number) => this.#readRow(plan, i) };
    return { result: () => Promise.resolve(result) };
  }

  // deno-lint-ignore require-await -- asynchronous by the seam
  async #readRow(plan: StepPlan, index: number): Promise<Float32Array> {
    const action = `read logit row ${index}`;
    if (this.#step(action) !== plan) throw new Error(`${action}: another step has begun`);
    const row = plan.logits[index];
    if (row === undefined) {
      throw new Error(`${action}: wanted a row below ${plan.logits.length}`);
    }
    const start = (this.#cpu.logitsPointer() >>> 0) + index * this.#cpu.logitsStride() * 4;
    const width = this.#shape.vocabularySize;
    // A copy: any growth of the memory would detach a view into it.
    const logits = new Float32Array(this.#module.memory.buffer, start, width).slice();
    if (row.edits !== null) editLogits(logits, row.edits);
    const mask = this.#masks[index] ?? null;
    if (mask !== null) maskLogits(logits, mask);
    return logits;
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#helpers.stop();
    this.#cpu.free();
    const held = heldBytes.get(this.#variant) ?? 0;
    heldBytes.set(this.#variant, held - this.#allocatedBytes);
    this.#allocatedBytes = 0;
  }

  /** Accounts for `bytes` about to be allocated, or throws. */
  #reserve(action: string, bytes: number): void {
    const held = heldBytes.get(this.#variant) ?? 0;
    const available = ADDRESS_BYTES - RESERVED_BYTES - held;
    if (bytes > available) {
      throw new Error(
        `${action}: wanted ${bytes} bytes, found ${available} bytes available in the 4 GiB ` +
          "that WebAssembly can address",
      );
    }
    heldBytes.set(this.#variant, held + bytes);
    this.#allocatedBytes += bytes;
  }

  #alive(action: string): void {
    if (this.#destroyed) throw new Error(`${action}: the device is destroyed`);
  }

  #loading(action: string, key: string, matrix: number): TensorSpec {
    this.#alive(`${action} tensor "${key}"`);
    const spec = this.#tensors.get(key);
    if (spec === undefined) throw new Error(`${action} tensor "${key}": not declared`);
    if (this.#capacity !== null) {
      throw new Error(`${action} tensor "${key}": the device is configured already`);
    }
    if (!Number.isInteger(matrix) || matrix < 0 || matrix >= spec.matrices) {
      throw new Error(
        `${action} tensor "${key}": wanted a matrix below ${spec.matrices}, found ${matrix}`,
      );
    }
    return spec;
  }

  #ready(action: string): Capacity {
    this.#alive(action);
    if (this.#capacity === null) throw new Error(`${action}: the device is not configured`);
    return this.#capacity;
  }

  #step(action: string): StepPlan {
    this.#ready(action);
    if (this.#plan === null) throw new Error(`${action}: no step has begun`);
    return this.#plan;
  }

  #mixer(action: string, layer: number, wanted: "kda" | "mla"): void {
    const found = this.#shape.layers[layer]?.mixer ?? "none";
    if (found !== wanted) {
      throw new Error(`${action}: wanted a ${wanted} layer, found "${found}" in layer ${layer}`);
    }
  }

  #feedForward(layer: number, wanted: "dense" | "moe"): void {
    const found = this.#shape.layers[layer]?.feedForward ?? "none";
    if (found !== wanted) {
      throw new Error(
        `run ${wanted}: wanted a ${wanted} layer, found "${found}" in layer ${layer}`,
      );
    }
  }
}

/** l' = (l > 0 ? l / divide : l * divide) + add, in f32 as the GPU does it. */
function editLogits(logits: Float32Array, { ids, divide, add }: LogitEdits): void {
  ids.forEach((id, at) => {
    const logit = logits[id]!;
    const scaled = Math.fround(logit > 0 ? logit / divide[at]! : logit * divide[at]!);
    logits[id] = scaled + add[at]!;
  });
}

/** Throws unless `bytes` at `offset` are whole units of `size` bytes within `limit` bytes. */
function checkPiece(
  action: string,
  units: string,
  offset: number,
  bytes: Uint8Array,
  { size, limit }: { size: number; limit: number },
): void {
  const end = offset + bytes.length;
  if (offset % size === 0 && end % size === 0 && offset >= 0 && end <= limit) return;
  throw new Error(
    `${action}: wanted whole ${units} within ${limit} bytes, found [${offset}, ${end})`,
  );
}
