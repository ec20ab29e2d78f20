/**
 * The main thread's handle on the engine: turns the Worker's messages into streams, watches that it
 * lives, and starts another when it does not.
 */
import { EngineError, type KedgeError, OverloadedError } from "../errors.ts";
import { DEATHS_WINDOW_MS, WATCHDOG_SOFTWARE_FACTOR } from "../limits.ts";
import { Admission, type AdmissionLimits } from "./admission.ts";
import type {
  Engine,
  EngineState,
  EngineStats,
  GenerateRequest,
  ModelInfo,
  OwnerLimits,
  Place,
} from "./engine.ts";
import { EventQueue } from "./event_queue.ts";
import type { EventStream } from "./event_stream.ts";
import { type EngineOptions, fromWire, type FromWorker, type ToWorker } from "./protocol.ts";
import { unpackEvents } from "./protocol.ts";
import { type StartedWorker, startWorker, type WorkerThread } from "./worker_thread.ts";

export interface SupervisionOptions {
  readonly admission: AdmissionLimits;
  /** A Worker with work that says nothing for this long is stuck; a software adapter gets more. */
  readonly watchdogMs: number;
  /** A reader that stays behind for this long is cut off. */
  readonly slowReaderMs: number;
  /** An engine that dies this often within DEATHS_WINDOW_MS is not started again. */
  readonly deathsMax: number;
}

/** Looks at the Worker this many times in the watchdog's time. */
const WATCHDOG_LOOKS = 10;

interface Use {
  readonly expertCount: number;
  readonly tokens: Float64Array;
}

export class SupervisedEngine implements Engine {
  readonly #queues = new Map<number, EventQueue>();
  readonly #admission: Admission;
  readonly #deaths: number[] = [];
  readonly #useWaiters: PromiseWithResolvers<Use>[] = [];
  /** Looks while there are requests. */
  #watchdog: ReturnType<typeof setInterval> | undefined;
  #thread: WorkerThread;
  #model: ModelInfo;
  #stats: EngineStats;
  #state: EngineState = "ready";
  #failure: KedgeError | null = null;
  #restarts = 0;
  #lastId = 0;
  /** When the Worker last said something, or was given work after a rest. */
  #heard = 0;

  constructor(
    started: StartedWorker,
    private readonly engineOptions: EngineOptions,
    private readonly options: SupervisionOptions,
  ) {
    this.#thread = started.thread;
    this.#model = started.model;
    this.#stats = started.stats;
    this.#admission = new Admission(options.admission);
    this.#listen();
  }

  get model(): ModelInfo {
    return this.#model;
  }

  /** Of the Worker that runs now: counts begin again when it is replaced. */
  get stats(): EngineStats {
    return this.#stats;
  }

  get state(): EngineState {
    return this.#state;
  }

  get failure(): KedgeError | null {
    return this.#failure;
  }

  get restarts(): number {
    return this.#restarts;
  }

  reserve(owner: string, limits: OwnerLimits, promptTokens: number): Place {
    if (this.#failure !== null) throw this.#failure;
    if (this.#state !== "ready") {
      throw new OverloadedError(
        `queue the request: wanted a server that takes requests, found it ${this.#state}`,
        this.#admission.retryAfterSeconds(),
      );
    }
    const place = this.#admission.reserve(owner, limits, promptTokens);
    return { release: () => this.#admission.release(place) };
  }

  generate(request: GenerateRequest, signal?: AbortSignal): EventStream {
    if (this.#failure !== null) throw this.#failure;
    if (this.#state === "recovering") throw engineRestarted();
    signal?.throwIfAborted();
    const id = ++this.#lastId;
    const began = performance.now();
    const queue = new EventQueue({
      signal,
      onPause: (paused) => this.#send({ type: "pause", id, paused }),
      onStop: () => this.#send({ type: "cancel", id }),
      onEnd: (isDone) => {
        this.#queues.delete(id);
        if (this.#queues.size === 0) clearInterval(this.#watchdog);
        if (isDone) this.#admission.learn((performance.now() - began) / 1_000);
      },
      slowReaderMs: this.options.slowReaderMs,
    });
    if (this.#queues.size === 0) this.#watch();
    this.#queues.set(id, queue);
    this.#send({ type: "submit", id, request });
    return queue;
  }

  drain(): void {
    if (this.#state === "ready" || this.#state === "recovering") this.#state = "draining";
  }

  async expertUse(): Promise<Use> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#state === "recovering") throw engineRestarted();
    const waiter = Promise.withResolvers<Use>();
    this.#useWaiters.push(waiter);
    this.#send({ type: "expertUse" });
    return await waiter.promise;
  }

  async close(): Promise<void> {
    this.#state = "failed";
    this.#failure ??= new EngineError("run the request: the engine was closed", "engine_closed");
    this.#endAll(this.#failure);
    await this.#thread.close();
  }

  #send(message: ToWorker): void {
    this.#thread.send(message);
  }

  #listen(): void {
    this.#heard = performance.now();
    const thread = this.#thread;
    thread.listen(
      (message) => this.#receive(message),
      // Its thread has ended.
      (error) => this.#replace(thread, error, "kill"),
    );
  }

  #receive(message: FromWorker): void {
    this.#heard = performance.now();
    if (message.type === "failed") {
      return this.#replace(this.#thread, fromWire(message.error), "ask");
    }
    if (message.type === "expertUse") {
      const { expertCount, tokens } = message;
      for (const { resolve } of this.#useWaiters.splice(0)) resolve({ expertCount, tokens });
    }
    if (message.type !== "step") return;
    this.#stats = message.stats;
    unpackEvents(message.events, (id, event) => this.#queues.get(id)?.push(event));
    // Afterwards, so that what a connection gets of a step is one write, whatever it reads.
    for (const queue of [...this.#queues.values()]) queue.wake();
  }

  get #watchdogMs(): number {
    return this.options.watchdogMs * (this.#model.isSoftware ? WATCHDOG_SOFTWARE_FACTOR : 1);
  }

  #watch(): void {
    this.#heard = performance.now();
    const everyMs = Math.ceil(this.#watchdogMs / WATCHDOG_LOOKS);
    this.#watchdog = setInterval(() => this.#look(), everyMs);
  }

  /** The watchdog's look. A paused request alone gives the Worker nothing to say. */
  #look(): void {
    const { running, queued, paused } = this.#stats;
    const hasWork = this.#queues.size > 0 && (running + queued === 0 || running + queued > paused);
    if (!hasWork || this.#state === "recovering") {
      this.#heard = performance.now();
      return;
    }
    if (performance.now() - this.#heard < this.#watchdogMs) return;
    const error = new EngineError(
      `run the engine: wanted a sign of life within ${this.#watchdogMs} ms, found none`,
      "engine_stuck",
    );
    this.#replace(this.#thread, error, "kill");
  }

  /** Ends what runs and starts another Worker, unless too many died of late. */
  #replace(thread: WorkerThread, error: KedgeError, how: "ask" | "kill"): void {
    if (thread !== this.#thread || this.#failure !== null) return;
    if (this.#state === "recovering") return;
    const now = performance.now();
    const wasDraining = this.#state === "draining";
    this.#deaths.push(now);
    const recent = this.#deaths.filter((moment) => now - moment < DEATHS_WINDOW_MS);
    const ended = how === "ask" ? thread.close() : thread.kill();
    const isLast = wasDraining || recent.length >= this.options.deathsMax;
    if (isLast) this.#fail(error);
    else this.#state = "recovering";
    this.#endAll(engineRestarted(error));
    if (!isLast) void this.#restart(ended);
  }

  async #restart(ended: Promise<void>): Promise<void> {
    try {
      await ended;
      const life = ++this.#restarts;
      const started = await startWorker({ ...this.engineOptions, life });
      if (this.#failure !== null) return await started.thread.close(); // closed meanwhile
      this.#thread = started.thread;
      this.#model = { ...started.model, created: this.#model.created };
      this.#stats = started.stats;
      this.#listen();
      if (this.#state === "recovering") this.#state = "ready";
    } catch (error) {
      this.#fail(error as KedgeError);
    }
  }

  #fail(error: KedgeError): void {
    this.#state = "failed";
    this.#failure ??= error;
  }

  /** Ends every request with `error`. */
  #endAll(error: KedgeError): void {
    for (const queue of [...this.#queues.values()]) {
      queue.push(error);
      queue.wake();
    }
    for (const { reject } of this.#useWaiters.splice(0)) reject(error);
  }
}

function engineRestarted(cause?: KedgeError): EngineError {
  const reason = cause === undefined ? "the engine restarts" : `${cause.message}; it restarts`;
  return new EngineError(`run the request: ${reason}, try again`, "engine_restarted");
}
