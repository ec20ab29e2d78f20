/** One Worker from start to end. */
import { EngineError, type KedgeError } from "../errors.ts";
import type { EngineStats, ModelInfo } from "./engine.ts";
import { type EngineOptions, fromWire, type FromWorker, type ToWorker } from "./protocol.ts";

/** A Worker that is stuck in a step gets this long to close its device. */
const CLOSE_MS = 2_000;
/**
 * A process that exits while the Worker's thread still tears its GPU driver down dies of a
 * segmentation fault (seen with NVIDIA's), and nothing tells when the thread has ended.
 */
const THREAD_END_MS = 500;

/** What is told while the engine starts. */
export type StartProgress = Extract<FromWorker, { readonly type: "loading" | "progress" }>;

export interface StartedWorker {
  readonly thread: WorkerThread;
  readonly model: ModelInfo;
  readonly stats: EngineStats;
}

/**
 * Starts a Worker and resolves when its model is loaded. Throws UsageError, ModelError, DeviceError
 * or EngineError; the Worker has ended then.
 */
export async function startWorker(
  options: EngineOptions,
  onProgress: (progress: StartProgress) => void = () => {},
): Promise<StartedWorker> {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), {
    type: "module",
    name: "engine",
  });
  const send = (message: ToWorker) => worker.postMessage(message);
  send({ type: "start", options });
  let opened = false;
  try {
    const { model, stats } = await untilReady(worker, (progress) => {
      opened ||= progress.type === "loading";
      onProgress(progress);
    });
    return { thread: new WorkerThread(worker, model.device === "webgpu"), model, stats };
  } catch (error) {
    await endThread(worker, opened && options.device !== "cpu");
    throw error;
  }
}

function untilReady(
  worker: Worker,
  onProgress: (progress: StartProgress) => void,
): Promise<{ readonly model: ModelInfo; readonly stats: EngineStats }> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "ready") resolve(data);
      else if (data.type === "failed") reject(fromWire(data.error));
      else if (data.type === "loading" || data.type === "progress") onProgress(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new EngineError(`start the engine: ${event.message}`));
    };
  });
}

/** Ends the Worker; `usedGpu`: gives its thread time to leave the driver. */
async function endThread(worker: Worker, usedGpu: boolean): Promise<void> {
  worker.terminate();
  if (usedGpu) await new Promise((resolve) => setTimeout(resolve, THREAD_END_MS));
}

/** A Worker whose model is loaded. */
export class WorkerThread {
  readonly #worker: Worker;
  readonly #usesGpu: boolean;
  #onClosed: () => void = () => {};

  constructor(worker: Worker, usesGpu: boolean) {
    this.#worker = worker;
    this.#usesGpu = usesGpu;
  }

  send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  /** From now on `onMessage` gets what the Worker says, and `onError` what nobody caught in it. */
  listen(onMessage: (message: FromWorker) => void, onError: (error: KedgeError) => void): void {
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "closed") this.#onClosed();
      else onMessage(data);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      onError(new EngineError(`run the engine: ${event.message}`, "engine_failed"));
    };
  }

  /** Lets the Worker release its device, then ends it. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        resolve();
      };
      this.send({ type: "close" });
    });
    await this.kill();
  }

  /** Ends the Worker without asking it. */
  async kill(): Promise<void> {
    this.#worker.onmessage = null;
    await endThread(this.#worker, this.#usesGpu);
  }
}
