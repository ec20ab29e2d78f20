/**
 * The main thread's handle on the engine: starts the Worker and turns its messages into streams.
 */
import { EngineError, KedgeError, UsageError } from "../errors.ts";
import { CONTEXT_TOKENS_DEFAULT, MAX_CONTEXT_TOKENS, SLOTS_DEFAULT, SLOTS_MAX } from "../limits.ts";
import type { Engine, EngineStats, GenerateEvent, GenerateRequest, ModelInfo } from "./engine.ts";
import { type DeviceChoice, fromWire, type FromWorker, type ToWorker } from "./protocol.ts";

export interface StartOptions {
  readonly modelDirectory: string;
  readonly device: DeviceChoice;
  /** Sequences that run at once. */
  readonly slots?: number | undefined;
  /** Most tokens of one sequence; at most the model's own context. */
  readonly contextTokens?: number | undefined;
  /** f16 unless results are compared with an oracle. */
  readonly latentFormat?: "f16" | "f32" | undefined;
}

/** A Worker that is stuck in a step gets this long to close its device. */
const CLOSE_MS = 2_000;
/**
 * A process that exits while the Worker's thread still tears its GPU driver down dies of a
 * segmentation fault (seen with NVIDIA's), and nothing tells when the thread has ended.
 */
const THREAD_END_MS = 500;

/** What is told while the engine starts. */
export type StartProgress =
  | { readonly type: "loading"; readonly device: string; readonly bytes: number }
  | { readonly type: "progress"; readonly done: number; readonly total: number };

/**
 * Starts the Worker, loads the model and resolves when the first request can run.
 * Throws UsageError, ModelError or DeviceError.
 */
export async function startEngine(
  options: StartOptions,
  onProgress: (progress: StartProgress) => void = () => {},
): Promise<Engine> {
  const { slots = SLOTS_DEFAULT, contextTokens, latentFormat = "f16" } = options;
  checkRange("--slots", slots, 1, SLOTS_MAX);
  checkRange("--context", contextTokens ?? CONTEXT_TOKENS_DEFAULT, 1, MAX_CONTEXT_TOKENS);
  const worker = new Worker(new URL("./worker.ts", import.meta.url), {
    type: "module",
    name: "engine",
  });
  const { modelDirectory, device } = options;
  const send = (message: ToWorker) => worker.postMessage(message);
  send({
    type: "start",
    options: { modelDirectory, device, slots, contextTokens, latentFormat },
  });
  let opened = false;
  try {
    const model = await untilReady(worker, (progress) => {
      opened ||= progress.type === "loading";
      onProgress(progress);
    });
    return new WorkerEngine(worker, model);
  } catch (error) {
    await endThread(worker, opened && device !== "cpu");
    throw error;
  }
}

/** Ends the Worker; `usedGpu`: gives its thread time to leave the driver. */
async function endThread(worker: Worker, usedGpu: boolean): Promise<void> {
  worker.terminate();
  if (usedGpu) await new Promise((resolve) => setTimeout(resolve, THREAD_END_MS));
}

function checkRange(flag: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UsageError(
    `read ${flag}: wanted a whole number from ${least} to ${most}, found ${value}`,
  );
}

function untilReady(
  worker: Worker,
  onProgress: (progress: StartProgress) => void,
): Promise<ModelInfo> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "ready") resolve(data.model);
      else if (data.type === "failed") reject(fromWire(data.error));
      else if (data.type === "loading" || data.type === "progress") onProgress(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new EngineError(`start the engine: ${event.message}`));
    };
  });
}

/** Events of one request on their way to its reader. */
class EventQueue {
  readonly #events: (GenerateEvent | KedgeError)[] = [];
  #wake: (() => void) | null = null;

  push(event: GenerateEvent | KedgeError): void {
    this.#events.push(event);
    this.#wake?.();
  }

  async next(signal: AbortSignal | undefined): Promise<GenerateEvent | null> {
    while (this.#events.length === 0) {
      if (signal?.aborted) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (signal?.aborted) return null;
    const event = this.#events.shift()!;
    if (event instanceof KedgeError) throw event;
    return event;
  }

  wake(): void {
    this.#wake?.();
  }
}

class WorkerEngine implements Engine {
  readonly #queues = new Map<number, EventQueue>();
  #lastId = 0;
  #failure: KedgeError | null = null;
  #onClosed: () => void = () => {};
  #stats: EngineStats = { running: 0, queued: 0, steps: 0, lastStepDispatches: 0 };

  constructor(private readonly worker: Worker, readonly model: ModelInfo) {
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new EngineError(`run the engine: ${event.message}`, "engine_failed"));
    };
  }

  get stats(): EngineStats {
    return this.#stats;
  }

  get failure(): KedgeError | null {
    return this.#failure;
  }

  async *generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent> {
    if (this.#failure !== null) throw this.#failure;
    if (signal?.aborted) return;
    const id = ++this.#lastId;
    const queue = new EventQueue();
    this.#queues.set(id, queue);
    const cancel = () => {
      this.#send({ type: "cancel", id });
      queue.wake();
    };
    signal?.addEventListener("abort", cancel, { once: true });
    this.#send({ type: "submit", id, request });
    let over = false;
    try {
      while (!over) {
        const event = await queue.next(signal);
        if (event === null) return;
        over = event.type === "done";
        yield event;
      }
    } catch (error) {
      over = true;
      throw error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#queues.delete(id);
      if (!over && !signal?.aborted) this.#send({ type: "cancel", id });
    }
  }

  async close(): Promise<void> {
    this.#fail(new EngineError("run the request: the engine was closed", "engine_closed"));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#send({ type: "close" });
    });
    await endThread(this.worker, this.model.device === "webgpu");
  }

  #send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if (message.type === "failed") this.#fail(fromWire(message.error));
    if (message.type === "closed") this.#onClosed();
    if (message.type !== "step") return;
    this.#stats = message.stats;
    for (const item of message.events) {
      const queue = this.#queues.get(item.id);
      if (queue === undefined) continue; // cancelled while the step ran
      queue.push("event" in item ? item.event : fromWire(item.error));
    }
  }

  /** Ends every request with `error`; later ones get it at once. */
  #fail(error: KedgeError): void {
    this.#failure ??= error;
    for (const queue of this.#queues.values()) queue.push(error);
  }
}
