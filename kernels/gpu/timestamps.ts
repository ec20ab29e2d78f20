/** Times of single dispatches, by timestamp queries. */
import type { Gpu } from "./gpu.ts";

/** Dispatches whose times are held. */
const DISPATCHES_MAX = 2_000;

export interface DispatchTime {
  readonly kernel: string;
  /** On the GPU; other dispatches may have run at the same time. */
  readonly nanoseconds: number;
}

/** Gives each dispatch a pass of its own with a time at its beginning and end. */
export class Timestamps {
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #kernels: string[] = [];

  constructor(private readonly gpu: Gpu) {
    const count = 2 * DISPATCHES_MAX;
    this.#queries = gpu.device.createQuerySet({ type: "timestamp", count });
    this.#resolved = gpu.device.createBuffer({
      label: "timestamps",
      size: 8 * count,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  /** What to begin the pass of the next dispatch with; undefined when there is no place left. */
  next(kernel: string): GPUComputePassTimestampWrites | undefined {
    const index = this.#kernels.length;
    if (index === DISPATCHES_MAX) return undefined;
    this.#kernels.push(kernel);
    return {
      querySet: this.#queries,
      beginningOfPassWriteIndex: 2 * index,
      endOfPassWriteIndex: 2 * index + 1,
    };
  }

  /** The times of all dispatches since it was made, in their order. They must have been submitted. */
  async take(): Promise<DispatchTime[]> {
    const { device } = this.gpu;
    const bytes = 16 * this.#kernels.length;
    if (bytes === 0) return [];
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = device.createBuffer({ label: "timestamps", size: bytes, usage });
    const encoder = device.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, 2 * this.#kernels.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const times = new BigUint64Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return this.#kernels.map((kernel, index) => ({
      kernel,
      nanoseconds: Number(times[2 * index + 1]! - times[2 * index]!),
    }));
  }

  destroy(): void {
    this.#queries.destroy();
    this.#resolved.destroy();
  }
}
