/**
 * The only place that asks for an adapter and a device.
 *
 * Errors surface where the caller stands: uncaptured errors and the loss of the device are stored
 * and thrown by the next `check`, because calls on a lost device succeed silently.
 */

import { type AdapterClass, type Tuning, TUNINGS } from "./tuning.ts";

/** Names by which software rasterisers introduce themselves. */
const SOFTWARE_ADAPTERS = ["llvmpipe", "swiftshader", "lavapipe", "software", "cpu"];

/** Features used where they are offered; nothing depends on them. */
const WANTED_FEATURES: readonly GPUFeatureName[] = ["timestamp-query"];

/** Limits asked for at the adapter's full value; the defaults are far lower. */
const RAISED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxStorageBuffersPerShaderStage",
] as const;

/** Buffers are rounded up to this many bytes, so that kernels may read whole vec4s at the end. */
const BUFFER_ROUNDING_BYTES = 16;

/** True when the adapter computes on the CPU: for testing shaders, not for serving. */
export function isSoftwareAdapter(info: GPUAdapterInfo): boolean {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`
    .toLowerCase();
  return info.isFallbackAdapter || SOFTWARE_ADAPTERS.some((name) => text.includes(name));
}

/** What is offered, without opening it: null when there is no adapter at all. */
export async function findAdapter(): Promise<{ description: string; software: boolean } | null> {
  const adapter = await requestAdapter();
  if (adapter === null) return null;
  return { description: describe(adapter.info), software: isSoftwareAdapter(adapter.info) };
}

/**
 * Opens the adapter. `software`: accept one that computes on the CPU.
 * Throws an Error that says what is missing.
 */
export async function openGpu(options: { readonly software: boolean }): Promise<Gpu> {
  const adapter = await requestAdapter();
  if (adapter === null) throw new Error("open a WebGPU adapter: wanted one, found none");
  if (isSoftwareAdapter(adapter.info) && !options.software) {
    throw new Error(
      `open a WebGPU adapter: wanted hardware, found the software adapter "${
        describe(adapter.info)
      }"`,
    );
  }
  const requiredLimits: Record<string, number> = {};
  for (const name of RAISED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const requiredFeatures = WANTED_FEATURES.filter((feature) => adapter.features.has(feature));
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  return new Gpu(device, describe(adapter.info), isSoftwareAdapter(adapter.info));
}

function requestAdapter(): Promise<GPUAdapter | null> {
  return navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
}

function describe(info: GPUAdapterInfo): string {
  return [info.device, info.description].filter((part) => part !== "").join(", ") || "unnamed";
}

/** What kernels cost, in seconds of its own thread. */
export interface Compilation {
  readonly kernels: number;
  /** Shaders read and checked. */
  readonly shaderSeconds: number;
  /** Pipelines made of them, by the driver. */
  readonly pipelineSeconds: number;
}

/** What shapes the kernels of a device. */
export interface GpuTuning {
  /** The class whose numbers these are, or that they were changed from. */
  readonly adapterClass: AdapterClass;
  readonly numbers: Tuning;
}

/** One open device with its limits and an account of what was allocated. */
export class Gpu {
  readonly limits: GPUSupportedLimits;
  #allocatedBytes = 0;
  readonly #compilation = { kernels: 0, shaderSeconds: 0, pipelineSeconds: 0 };
  #failure: Error | null = null;
  #destroyed = false;
  #sealed = false;
  #tuning: GpuTuning;

  constructor(
    readonly device: GPUDevice,
    readonly description: string,
    readonly software: boolean,
  ) {
    this.limits = device.limits;
    const adapterClass = software ? "software" : "discrete";
    this.#tuning = { adapterClass, numbers: TUNINGS[adapterClass] };
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.#failure ??= new Error(`run on "${this.description}": ${error.message}`);
    });
    device.lost.then((info) => {
      if (this.#destroyed) return;
      this.#failure = new Error(`run on "${this.description}": device lost: ${info.message}`);
    });
  }

  /** Of software adapters theirs, of others the discrete ones', unless `tune` has changed it. */
  get tuning(): GpuTuning {
    return this.#tuning;
  }

  /** Before kernels are compiled: they take these numbers. */
  tune(tuning: GpuTuning): void {
    this.#tuning = tuning;
  }

  /** Bytes of all buffers made by `buffer`. */
  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /** Most bytes of a buffer that one binding holds whole. */
  get bufferBytesMax(): number {
    return Math.min(this.limits.maxStorageBufferBindingSize, this.limits.maxBufferSize);
  }

  /** Kernels compiled so far. */
  get compilation(): Compilation {
    return { ...this.#compilation };
  }

  /** Counts one compiled kernel; Deno does the work in the calls, so it is the thread's time. */
  countKernel(shaderMs: number, pipelineMs: number): void {
    this.#compilation.kernels++;
    this.#compilation.shaderSeconds += shaderMs / 1_000;
    this.#compilation.pipelineSeconds += pipelineMs / 1_000;
  }

  /**
   * A zeroed storage buffer of at least `bytes` bytes. Throws when it exceeds the adapter's limit,
   * and after `seal`.
   */
  buffer(label: string, bytes: number): GPUBuffer {
    if (this.#sealed) throw new Error(`allocate "${label}": wanted nothing more to be allocated`);
    const size = Math.max(1, Math.ceil(bytes / BUFFER_ROUNDING_BYTES)) * BUFFER_ROUNDING_BYTES;
    if (size > this.limits.maxBufferSize) {
      throw new Error(
        `allocate "${label}" on "${this.description}": wanted ${size} bytes, ` +
          `found a limit of ${this.limits.maxBufferSize} bytes a buffer`,
      );
    }
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.device.createBuffer({ label, size, usage });
    this.#allocatedBytes += size;
    return buffer;
  }

  /** Gives a buffer of `buffer` back once the GPU is done with it. */
  release(buffer: GPUBuffer): void {
    this.#allocatedBytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Copies the first `bytes` bytes of `data` (all, when left out; a multiple of 4) into `buffer`
   * from `offset` on. Every upload goes through here: Deno's `writeBuffer` aborts the process when
   * it is given an empty array.
   */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView, bytes?: number): void {
    const count = bytes ?? data.byteLength;
    if (count === 0) return;
    // A view, as Deno takes one of shared memory too, but not the shared memory itself.
    const view = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, count);
    this.device.queue.writeBuffer(buffer, offset, view);
  }

  /** Ends allocation: what serves was made before. */
  seal(): void {
    this.#sealed = true;
  }

  /** Throws the first stored error, or the loss of the device. */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#destroyed) throw new Error(`run on "${this.description}": the device was destroyed`);
  }

  destroy(): void {
    this.#destroyed = true;
    this.device.destroy();
  }
}
