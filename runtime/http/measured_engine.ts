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

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent> {
    const { requests } = this.#metrics;
    const usage = this.#usage;
    usage.promptTokens = (usage.promptTokens ?? 0) + request.promptIds.length;
    usage.completionTokens ??= 0;
    const events = this.#engine.generate(request, signal)[Symbol.asyncIterator]();
    const measured = new MeasuredEvents(events, requests, usage, request.promptIds.length, signal);
    return { [Symbol.asyncIterator]: () => measured };
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

/** Looks at the events as they pass. No generator: it would cost each token several turns. */
class MeasuredEvents implements AsyncIterator<GenerateEvent> {
  readonly #events: AsyncIterator<GenerateEvent>;
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
    events: AsyncIterator<GenerateEvent>,
    metrics: RequestMetrics,
    usage: Usage,
    promptTokens: number,
    signal: AbortSignal | undefined,
  ) {
    this.#events = events;
    this.#metrics = metrics;
    this.#usage = usage;
    this.#promptTokens = promptTokens;
    this.#signal = signal;
  }

  next(): Promise<IteratorResult<GenerateEvent>> {
    return this.#events.next().then(
      (result) => {
        if (result.done === true) this.#end("abort");
        else this.#see(result.value);
        return result;
      },
      (error) => {
        this.#end("error");
        throw error;
      },
    );
  }

  /** The reader has enough: its client left, or the text holds a stop string. */
  async return(): Promise<IteratorResult<GenerateEvent>> {
    this.#end(this.#signal?.aborted === true ? "abort" : "stop");
    await this.#events.return?.();
    return { done: true, value: undefined };
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

  /** Counts the first end alone: after `done` comes the iteration's own. */
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
