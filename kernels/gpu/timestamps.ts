/** Times of single dispatches, by timestamp queries. */
import type { Gpu } from "./gpu.ts";
import { readSeldom } from "./readback.ts";

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

  /** The times of all dispatches since it was made, in order. They must have been submitted. */
  async take(): Promise<DispatchTime[]> {
    const count = 2 * this.#kernels.length;
    if (count === 0) return [];
    const data = await readSeldom(this.gpu, 8 * count, (encoder, staging) => {
      encoder.resolveQuerySet(this.#queries, 0, count, this.#resolved, 0);
      encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, 8 * count);
    });
    const times = new BigUint64Array(data);
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
