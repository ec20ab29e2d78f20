/**
 * Collects dispatches of one step into command buffers.
 *
 * Parameters of all dispatches of a submission lie in one uniform buffer, written before it (the
 * queue keeps the order) and addressed by dynamic offsets; bind groups are cached by pipeline and
 * buffers, so a steady decode creates none.
 */
import type { Gpu } from "./gpu.ts";
import type { Access, ParamTypes, Pipeline } from "./kernel.ts";
import type { Timestamps } from "./timestamps.ts";

export interface BufferUse {
  readonly buffer: GPUBuffer;
  readonly access: Access;
  readonly offset: number;
  /** undefined: to the end of the buffer, at most the adapter's binding limit. */
  readonly bytes: number | undefined;
}

/** A buffer (or the part of it from `offset`, a multiple of 256) that a kernel only reads. */
export function read(buffer: GPUBuffer, offset = 0, bytes?: number): BufferUse {
  return { buffer, access: "read", offset, bytes };
}

/** A buffer that a kernel writes, or reads and writes. */
export function write(buffer: GPUBuffer, offset = 0, bytes?: number): BufferUse {
  return { buffer, access: "write", offset, bytes };
}

/** Uniform offsets must be multiples of this (WebGPU's default limit). */
const PARAM_STRIDE_BYTES = 256;
/** Dispatches of one submission; more are split over several. */
const PARAM_SLOTS = 2_048;
/**
 * Arithmetic after which a command buffer ends: about 100 ms at 2 TOPS, which any GPU that serves
 * reaches in large products, so that no driver's watchdog takes a long step for a hang. Faster ones
 * pay some 20 us for each cut.
 */
const COMMAND_OPERATIONS = 2e11;
/** WebGPU's limit of workgroups a dimension. */
const GROUP_LIMIT = 65_535;

export class Recorder {
  readonly #gpu: Gpu;
  readonly #params: GPUBuffer;
  readonly #staging = new ArrayBuffer(PARAM_SLOTS * PARAM_STRIDE_BYTES);
  readonly #words = new DataView(this.#staging);
  readonly #groups = new Map<string, GPUBindGroup>();
  readonly #bufferIds = new WeakMap<GPUBuffer, number>();
  #bufferCount = 0;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #operations = 0;
  #used = 0;
  /** Of these, how many were written to `#params`. */
  #written = 0;
  #dispatches = 0;
  #timestamps: Timestamps | null = null;
  /** Finished and not yet submitted. */
  #finished: GPUCommandBuffer[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#params = gpu.device.createBuffer({
      label: "params",
      size: PARAM_SLOTS * PARAM_STRIDE_BYTES,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
  }

  /** Dispatches recorded since `resetCount`. */
  get dispatchCount(): number {
    return this.#dispatches;
  }

  resetCount(): void {
    this.#dispatches = 0;
  }

  /** Times every dispatch from now on; null: none. */
  set timestamps(timestamps: Timestamps | null) {
    this.#timestamps = timestamps;
  }

  /** Records one dispatch. `groups` are workgroups a dimension; zero groups record nothing. */
  dispatch<P extends ParamTypes>(
    pipeline: Pipeline<P>,
    uses: readonly BufferUse[],
    params: { readonly [K in keyof P]: number },
    groups: readonly [number, number?, number?],
  ): void {
    const [x, y = 1, z = 1] = groups;
    if (x === 0 || y === 0 || z === 0) return;
    this.#checkDispatch(pipeline, uses, groups);
    if (this.#used === PARAM_SLOTS) this.submit();
    const offset = this.#used++ * PARAM_STRIDE_BYTES;
    this.#writeParams(pipeline, params, offset);
    const pass = this.#computePass(pipeline.name);
    pass.setPipeline(pipeline.pipeline);
    pass.setBindGroup(0, this.#bindGroup(pipeline, uses), [offset]);
    pass.dispatchWorkgroups(x, y, z);
    this.#dispatches++;
  }

  /** Copies bytes between buffers, in order with the dispatches. Multiples of 4. */
  copy(
    source: GPUBuffer,
    sourceOffset: number,
    target: GPUBuffer,
    targetOffset: number,
    bytes: number,
  ): void {
    this.#endPass();
    this.#commands().copyBufferToBuffer(source, sourceOffset, target, targetOffset, bytes);
  }

  /** Zeroes bytes of a buffer, in order with the dispatches. Multiples of 4. */
  clear(buffer: GPUBuffer, offset: number, bytes: number): void {
    this.#endPass();
    this.#commands().clearBuffer(buffer, offset, bytes);
  }

  /**
   * Tells what the dispatches since the last call cost, in multiplications and additions. Long
   * steps are handed over in several pieces that a driver's watchdog times one by one.
   */
  work(operations: number): void {
    this.#operations += operations;
    if (this.#operations >= COMMAND_OPERATIONS) this.finish();
  }

  /** Does now what can be done before a submission that has to wait. */
  finish(): void {
    this.#endPass();
    this.#operations = 0;
    if (this.#encoder === null) return;
    this.#finished.push(this.#encoder.finish());
    this.#encoder = null;
    const start = this.#written * PARAM_STRIDE_BYTES;
    const bytes = this.#used * PARAM_STRIDE_BYTES - start;
    if (bytes > 0) {
      this.#gpu.write(this.#params, start, new Uint8Array(this.#staging, start, bytes));
    }
    this.#written = this.#used;
  }

  /** Hands everything recorded so far to the GPU. Does nothing when there is nothing. */
  submit(): void {
    this.finish();
    if (this.#finished.length === 0) return;
    for (const commands of this.#finished) this.#gpu.device.queue.submit([commands]);
    this.#finished = [];
    this.#used = 0;
    this.#written = 0;
  }

  #checkDispatch(
    pipeline: Pipeline<ParamTypes>,
    uses: readonly BufferUse[],
    groups: readonly (number | undefined)[],
  ): void {
    const { name, bindings } = pipeline;
    if (uses.length !== bindings.length) {
      throw new Error(
        `dispatch "${name}": wanted ${bindings.length} buffers, found ${uses.length}`,
      );
    }
    for (const [index, use] of uses.entries()) {
      if (use.access !== bindings[index]) {
        throw new Error(
          `dispatch "${name}": wanted ${bindings[index]} at binding ${index + 1}, ` +
            `found ${use.access}`,
        );
      }
    }
    if (groups.some((count) => count !== undefined && count > GROUP_LIMIT)) {
      throw new Error(
        `dispatch "${name}": wanted at most ${GROUP_LIMIT} groups a dimension, ` +
          `found [${groups.join(", ")}]`,
      );
    }
  }

  #writeParams<P extends ParamTypes>(
    pipeline: Pipeline<P>,
    params: { readonly [K in keyof P]: number },
    offset: number,
  ): void {
    let at = offset;
    for (const [name, type] of Object.entries(pipeline.params)) {
      const value = params[name]!;
      if (type === "f32") {
        this.#words.setFloat32(at, value, true);
      } else {
        if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
          throw new Error(`dispatch "${pipeline.name}": wanted u32 "${name}", found ${value}`);
        }
        this.#words.setUint32(at, value, true);
      }
      at += 4;
    }
  }

  #bindGroup(pipeline: Pipeline<ParamTypes>, uses: readonly BufferUse[]): GPUBindGroup {
    let key = `${pipeline.id}`;
    for (const use of uses) key += `,${this.#idOf(use.buffer)}:${use.offset}:${use.bytes ?? ""}`;
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    const limit = this.#gpu.limits.maxStorageBufferBindingSize;
    const group = this.#gpu.device.createBindGroup({
      label: pipeline.name,
      layout: pipeline.layout,
      entries: [
        { binding: 0, resource: { buffer: this.#params, size: PARAM_STRIDE_BYTES } },
        ...uses.map((use, index) => ({
          binding: index + 1,
          resource: {
            buffer: use.buffer,
            offset: use.offset,
            size: use.bytes ?? Math.min(use.buffer.size - use.offset, limit - limit % 16),
          },
        })),
      ],
    });
    this.#groups.set(key, group);
    return group;
  }

  #idOf(buffer: GPUBuffer): number {
    const known = this.#bufferIds.get(buffer);
    if (known !== undefined) return known;
    this.#bufferIds.set(buffer, ++this.#bufferCount);
    return this.#bufferCount;
  }

  #commands(): GPUCommandEncoder {
    return this.#encoder ??= this.#gpu.device.createCommandEncoder();
  }

  /** The open pass; where dispatches are timed, one of its own for the next. */
  #computePass(kernel: string): GPUComputePassEncoder {
    const timestampWrites = this.#timestamps?.next(kernel);
    if (timestampWrites === undefined) return this.#pass ??= this.#commands().beginComputePass();
    this.#endPass();
    return this.#pass = this.#commands().beginComputePass({ timestampWrites });
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }
}
