/**
 * Brings bytes from the GPU to the host. The only file that maps buffers.
 *
 * Awaiting `mapAsync` costs 10 ms in Deno: it waits for the GPU in the call itself and then sleeps.
 * So the fast way maps without awaiting and takes the range at once. It leans on that behaviour,
 * and on a buffer that was never mapped before it aborts the process: every staging buffer is
 * mapped and awaited once first, and a self-test at the start compares both ways. Where they
 * differ, every read awaits.
 */
import type { Gpu } from "./gpu.ts";
import type { Recorder } from "./recorder.ts";

/** Rounds of the self-test, each with other data. */
const SELF_TEST_ROUNDS = 4;
const SELF_TEST_BYTES = 1_024;

/** A piece of a buffer; offset and bytes in multiples of 4. */
export interface ReadPart {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
}

/** `bytes` bytes that `record` copies into a buffer made for them, awaited: to be used seldom. */
export async function readSeldom(
  gpu: Gpu,
  bytes: number,
  record: (encoder: GPUCommandEncoder, staging: GPUBuffer) => void,
): Promise<ArrayBuffer> {
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  const staging = gpu.device.createBuffer({ label: "read seldom", size: bytes, usage });
  const encoder = gpu.device.createCommandEncoder();
  record(encoder, staging);
  gpu.device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const data = staging.getMappedRange().slice(0);
  staging.destroy();
  return data;
}

export class Readback {
  readonly #gpu: Gpu;
  readonly #staging: GPUBuffer;
  #synchronous = false;

  private constructor(gpu: Gpu, staging: GPUBuffer) {
    this.#gpu = gpu;
    this.#staging = staging;
  }

  /** Makes and warms a staging buffer that holds reads of up to `bytesMax` bytes. */
  static async create(gpu: Gpu, bytesMax: number): Promise<Readback> {
    const size = Math.max(SELF_TEST_BYTES, Math.ceil(bytesMax / 16) * 16);
    const staging = gpu.device.createBuffer({
      label: "readback",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    await staging.mapAsync(GPUMapMode.READ);
    staging.getMappedRange();
    staging.unmap();
    const readback = new Readback(gpu, staging);
    readback.#synchronous = await readback.#selfTest();
    return readback;
  }

  /** Whether reads take the fast way. */
  get synchronous(): boolean {
    return this.#synchronous;
  }

  /**
   * Submits what `recorder` holds and returns a copy of `bytes` bytes of `buffer` from `offset`
   * (both multiples of 4). Throws when the device was lost or an error is pending.
   */
  async read(
    recorder: Recorder,
    buffer: GPUBuffer,
    offset: number,
    bytes: number,
  ): Promise<ArrayBuffer> {
    this.record(recorder, [{ buffer, offset, bytes }]);
    recorder.submit();
    return await this.take(bytes);
  }

  /**
   * Records copies of these parts, one behind the other, and submits nothing: `take` gives them
   * once the recorder has been submitted. Until then nothing else may be read through this.
   */
  record(recorder: Recorder, parts: readonly ReadPart[]): void {
    const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    if (total > this.#staging.size) {
      throw new Error(`read back: wanted at most ${this.#staging.size} bytes, found ${total}`);
    }
    let at = 0;
    for (const { buffer, offset, bytes } of parts) {
      recorder.copy(buffer, offset, this.#staging, at, bytes);
      at += bytes;
    }
  }

  /** Waits for the copies that `record` recorded; `bytes`: of all parts together, at least 4. */
  async take(bytes: number): Promise<ArrayBuffer> {
    const data = this.#synchronous ? this.#takeNow(bytes) : await this.#takeAwaited(bytes);
    this.#gpu.check();
    return data;
  }

  #takeNow(bytes: number): ArrayBuffer {
    let rejection: unknown = null;
    this.#staging.mapAsync(GPUMapMode.READ, 0, bytes).catch((error) => rejection = error);
    try {
      const data = this.#staging.getMappedRange(0, bytes).slice(0);
      this.#staging.unmap();
      return data;
    } catch (error) {
      this.#gpu.check();
      throw new Error(`read back from "${this.#gpu.description}": ${rejection ?? error}`);
    }
  }

  async #takeAwaited(bytes: number): Promise<ArrayBuffer> {
    await this.#staging.mapAsync(GPUMapMode.READ, 0, bytes);
    const data = this.#staging.getMappedRange(0, bytes).slice(0);
    this.#staging.unmap();
    return data;
  }

  /** True when the fast way gives the bytes that the GPU was told to write, every time. */
  async #selfTest(): Promise<boolean> {
    const source = this.#gpu.device.createBuffer({
      size: SELF_TEST_BYTES,
      usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    const words = new Uint32Array(SELF_TEST_BYTES / 4);
    try {
      for (let round = 1; round <= SELF_TEST_ROUNDS; round++) {
        words.forEach((_, index) => words[index] = Math.imul(index + 1, 2_654_435_761) + round);
        this.#copyToStaging(source, words);
        const fast = new Uint32Array(this.#takeNow(SELF_TEST_BYTES));
        this.#copyToStaging(source, words);
        const awaited = new Uint32Array(await this.#takeAwaited(SELF_TEST_BYTES));
        if (words.some((word, index) => word !== fast[index] || word !== awaited[index])) {
          return false;
        }
      }
      return true;
    } catch {
      return false;
    } finally {
      source.destroy();
    }
  }

  #copyToStaging(source: GPUBuffer, words: Uint32Array<ArrayBuffer>): void {
    this.#gpu.write(source, 0, words);
    const encoder = this.#gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, this.#staging, 0, SELF_TEST_BYTES);
    this.#gpu.device.queue.submit([encoder.finish()]);
  }
}
