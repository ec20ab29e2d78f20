/** The engine as one HTTP request sees it: what it asks for and gets is counted on the way. */
import type {
  Engine,
  EngineState,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  ModelInfo,
  OwnerLimits,
  Place,
} from "../engine/engine.ts";
import { EventStream } from "../engine/event_stream.ts";
import { RateLimitError } from "../errors.ts";
import type { EndReason, Metrics, RequestMetrics } from "./metrics.ts";

/** Tokens of one HTTP request, over all its prompts; null before anything is generated. */
export interface Usage {
  promptTokens: number | null;
  completionTokens: number | null;
}

export class MeasuredEngine implements Engine {
  readonly #engine: Engine;
  readonly #metrics: Metrics;
  readonly #usage: Usage;

  constructor(engine: Engine, metrics: Metrics, usage: Usage) {
    this.#engine = engine;
    this.#metrics = metrics;
    this.#usage = usage;
  }

  get model(): ModelInfo {
    return this.#engine.model;
  }

  get stats(): EngineStats {
    return this.#engine.stats;
  }

  get state(): EngineState {
    return this.#engine.state;
  }

  get failure(): Error | null {
    return this.#engine.failure;
  }

  get restarts(): number {
    return this.#engine.restarts;
  }

  reserve(owner: string, limits: OwnerLimits, promptTokens: number): Place {
    try {
      return this.#engine.reserve(owner, limits, promptTokens);
    } catch (error) {
      const { state } = this.#engine;
      if (error instanceof RateLimitError) this.#metrics.reject("key_limit");
      else this.#metrics.reject(state === "ready" ? "queue_full" : state);
      throw error;
    }
  }

  generate(request: GenerateRequest, signal?: AbortSignal): EventStream {
    const { requests } = this.#metrics;
    const usage = this.#usage;
    usage.promptTokens = (usage.promptTokens ?? 0) + request.promptIds.length;
    usage.completionTokens ??= 0;
    try {
      const events = this.#engine.generate(request, signal);
      return new MeasuredEvents(events, requests, usage, request.promptIds.length, signal);
    } catch (error) {
      requests.end(signal?.aborted === true ? "abort" : "error");
      throw error;
    }
  }

  drain(): void {
    this.#engine.drain();
  }

  expertUse(): ReturnType<Engine["expertUse"]> {
    return this.#engine.expertUse();
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}

/** Looks at the events as they pass. */
class MeasuredEvents extends EventStream {
  readonly #events: EventStream;
  readonly #metrics: RequestMetrics;
  readonly #usage: Usage;
  readonly #promptTokens: number;
  readonly #signal: AbortSignal | undefined;
  readonly #began = performance.now();
  /** When the last token came. */
  #last = 0;
  #tokens = 0;
  #ended = false;

  constructor(
    events: EventStream,
    metrics: RequestMetrics,
    usage: Usage,
    promptTokens: number,
    signal: AbortSignal | undefined,
  ) {
    super();
    this.#events = events;
    events.onReady = () => this.onReady();
    this.#metrics = metrics;
    this.#usage = usage;
    this.#promptTokens = promptTokens;
    this.#signal = signal;
  }

  override take(): GenerateEvent | null {
    let event: GenerateEvent | null;
    try {
      event = this.#events.take();
    } catch (error) {
      this.#end(this.#signal?.aborted === true ? "abort" : "error");
      throw error;
    }
    if (event !== null) this.#see(event);
    return event;
  }

  /** The reader has enough: its client left, or the text holds a stop string. */
  override close(): void {
    this.#end(this.#signal?.aborted === true ? "abort" : "stop");
    this.#events.close();
  }

  #see(event: GenerateEvent): void {
    const metrics = this.#metrics;
    if (event.type === "token") {
      const now = performance.now();
      if (this.#tokens === 0) {
        metrics.promptTokens.inc(this.#promptTokens);
        metrics.firstToken.observe((now - this.#began) / 1_000);
      } else {
        metrics.betweenTokens.observe((now - this.#last) / 1_000);
      }
      metrics.generationTokens.inc();
      this.#last = now;
      this.#tokens++;
      this.#usage.completionTokens!++;
    } else if (event.type === "done") {
      if (this.#tokens === 0) metrics.promptTokens.inc(this.#promptTokens);
      metrics.queue.observe(event.timings.queuedMs / 1_000);
      metrics.prefill.observe(event.timings.prefillMs / 1_000);
      metrics.decode.observe(event.timings.decodeMs / 1_000);
      this.#end(event.reason);
    }
  }

  /** Counts the first end alone: after `done` comes the reader's own. */
  #end(reason: EndReason): void {
    if (this.#ended) return;
    this.#ended = true;
    const metrics = this.#metrics;
    metrics.end(reason);
    if (reason === "abort" || reason === "error") return;
    metrics.whole.observe((performance.now() - this.#began) / 1_000);
    metrics.promptLength.observe(this.#promptTokens);
    metrics.generationLength.observe(this.#tokens);
  }
}
