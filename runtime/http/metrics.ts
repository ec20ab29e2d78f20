/**
 * What the server counts, in Prometheus' text format: vLLM's names where it has one, so that its
 * dashboards and routers work, and `kedge_*` for the rest.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine, EngineState } from "../engine/engine.ts";

const ENGINE_STATES: readonly EngineState[] = ["ready", "recovering", "draining", "failed"];

/** Why a request ended. "abort": the client left. */
export type EndReason = "stop" | "length" | "abort" | "error";

/** Why a request was not taken; the states are those of the engine. */
export type RejectionReason = "queue_full" | "key_limit" | Exclude<EngineState, "ready">;

// Bounds in seconds: vLLM's, finer at the low end as small models need it.
// deno-fmt-ignore
const REQUEST_SECONDS = [
  0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240,
  480, 960, 1920,
];
// deno-fmt-ignore
const FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
// deno-fmt-ignore
const TOKEN_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
  10, 20, 40, 80,
];

/** The metrics of one app. All series of vLLM's names bear the model's name. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #rejections: Counter<"reason">;
  readonly #httpRequests: Counter<"route" | "method" | "status">;
  readonly #httpSeconds: Histogram<"route" | "method">;
  readonly requests: RequestMetrics;

  constructor(engine: Engine) {
    const registers = [this.#registry];
    this.requests = new RequestMetrics(this.#registry, engine.model.id, engine.model.contextLength);
    this.#rejections = new Counter({
      name: "kedge_rejections_total",
      help: "Requests that were not taken",
      labelNames: ["reason"],
      registers,
    });
    this.#httpRequests = new Counter({
      name: "http_requests_total",
      help: "HTTP requests answered to their end",
      labelNames: ["route", "method", "status"],
      registers,
    });
    this.#httpSeconds = new Histogram({
      name: "http_request_duration_seconds",
      help: "From the request's headers to the end of its answer",
      labelNames: ["route", "method"],
      buckets: REQUEST_SECONDS,
      registers,
    });
    addEngineMetrics(this.#registry, engine);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  reject(reason: RejectionReason): void {
    this.#rejections.inc({ reason });
  }

  observeHttp(route: string, method: string, status: number, seconds: number): void {
    this.#httpRequests.inc({ route, method, status: `${status}` });
    this.#httpSeconds.observe({ route, method }, seconds);
  }
}

/** What is observed of each generation. */
export class RequestMetrics {
  readonly promptTokens: Counter.Internal;
  readonly generationTokens: Counter.Internal;
  readonly firstToken: Histogram.Internal<string>;
  readonly betweenTokens: Histogram.Internal<string>;
  readonly whole: Histogram.Internal<string>;
  readonly queue: Histogram.Internal<string>;
  readonly prefill: Histogram.Internal<string>;
  readonly decode: Histogram.Internal<string>;
  readonly promptLength: Histogram.Internal<string>;
  readonly generationLength: Histogram.Internal<string>;
  readonly #ends: Counter<"model_name" | "finished_reason">;
  readonly #model: string;

  constructor(registry: Registry, model: string, contextLength: number) {
    this.#model = model;
    const registers = [registry];
    const counter = (name: string, help: string) =>
      new Counter({ name: `vllm:${name}`, help, labelNames: ["model_name"], registers })
        .labels(model);
    const histogram = (name: string, help: string, buckets: readonly number[]) =>
      new Histogram({
        name: `vllm:${name}`,
        help,
        labelNames: ["model_name"],
        buckets: [...buckets],
        registers,
      }).labels(model);
    const seconds = (name: string, help: string, buckets = REQUEST_SECONDS) =>
      histogram(`${name}_seconds`, help, buckets);
    const tokens = tokenBuckets(contextLength);
    this.promptTokens = counter("prompt_tokens_total", "Prompt tokens computed");
    this.generationTokens = counter("generation_tokens_total", "Tokens generated");
    this.firstToken = seconds("time_to_first_token", "To the first token", FIRST_TOKEN_SECONDS);
    this.betweenTokens = seconds("inter_token_latency", "Between two tokens", TOKEN_SECONDS);
    this.whole = seconds("e2e_request_latency", "From a request's arrival to its last token");
    this.queue = seconds("request_queue_time", "In the queue");
    this.prefill = seconds("request_prefill_time", "Computing the prompt");
    this.decode = seconds("request_decode_time", "Generating");
    this.promptLength = histogram("request_prompt_tokens", "Prompt tokens of a request", tokens);
    this.generationLength = histogram(
      "request_generation_tokens",
      "Generated tokens of a request",
      tokens,
    );
    this.#ends = new Counter({
      name: "vllm:request_success_total",
      help: "Requests that ended, by reason",
      labelNames: ["model_name", "finished_reason"],
      registers,
    });
  }

  end(reason: EndReason): void {
    this.#ends.inc({ model_name: this.#model, finished_reason: reason });
  }
}

/** 1, 2, 5, 10, 20, ... up to the context, as vLLM's. */
function tokenBuckets(contextLength: number): number[] {
  const buckets: number[] = [];
  for (let power = 1; power <= contextLength; power *= 10) {
    buckets.push(...[1, 2, 5].map((step) => step * power).filter((each) => each <= contextLength));
  }
  return buckets;
}

/** What is read from the engine when the metrics are. */
function addEngineMetrics(registry: Registry, engine: Engine): void {
  const registers = [registry];
  const model = { model_name: engine.model.id };
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `vllm:${name}`,
      help,
      labelNames: ["model_name"],
      registers,
      collect() {
        this.set(model, read());
      },
    });
  gauge("num_requests_running", "Sequences that run", () => engine.stats.running);
  gauge("num_requests_waiting", "Requests in the queue", () => engine.stats.queued);
  gauge("kv_cache_usage_perc", "Share of the pages in use, 0 to 1", () => {
    const { pages, freePages } = engine.stats;
    return pages === 0 ? 0 : 1 - freePages / pages;
  });
  // The engine counts; a restarted one from 0, as counters may.
  const counter = (
    name: string,
    help: string,
    labels: Record<string, string>,
    read: () => number,
  ) =>
    new Counter({
      name,
      help,
      labelNames: Object.keys(labels),
      registers,
      collect() {
        this.reset();
        this.inc(labels, read());
      },
    });
  counter(
    "vllm:num_preemptions_total",
    "Sequences that gave way",
    model,
    () => engine.stats.preemptions,
  );
  counter("kedge_steps_total", "Steps run", {}, () => engine.stats.steps);
  counter(
    "kedge_device_wait_seconds_total",
    "Waits for the device",
    {},
    () => engine.stats.deviceWaitMs / 1_000,
  );
  counter("kedge_engine_restarts_total", "Restarts of the engine", {}, () => engine.restarts);
  addStateMetrics(registry, engine);
}

/** Families with a label of their own. */
function addStateMetrics(registry: Registry, engine: Engine): void {
  const registers = [registry];
  new Gauge({
    name: "kedge_dispatches_last_step",
    help: "GPU dispatches of the last step",
    registers,
    collect() {
      this.set(engine.stats.lastStepDispatches);
    },
  });
  new Gauge({
    name: "kedge_slots",
    help: "Sequences that fit at once",
    labelNames: ["state"],
    registers,
    collect() {
      const { freeSlots } = engine.stats;
      this.set({ state: "free" }, freeSlots);
      this.set({ state: "used" }, engine.model.slots - freeSlots);
    },
  });
  new Gauge({
    name: "kedge_pages",
    help: "Pages of the latent cache",
    labelNames: ["state"],
    registers,
    collect() {
      const { pages, freePages } = engine.stats;
      this.set({ state: "free" }, freePages);
      this.set({ state: "used" }, pages - freePages);
    },
  });
  new Counter({
    name: "kedge_step_seconds_total",
    help: "Time in steps",
    labelNames: ["phase"],
    registers,
    collect() {
      const { prefillStepMs, decodeStepMs } = engine.stats;
      this.reset();
      this.inc({ phase: "prefill" }, prefillStepMs / 1_000);
      this.inc({ phase: "decode" }, decodeStepMs / 1_000);
    },
  });
  new Gauge({
    name: "kedge_engine_state",
    help: "1 for the state that the engine is in",
    labelNames: ["state"],
    registers,
    collect() {
      for (const state of ENGINE_STATES) this.set({ state }, state === engine.state ? 1 : 0);
    },
  });
}

/** GET /metrics; `?experts=1` adds the use of the experts. */
export async function showMetrics(
  metrics: Metrics,
  engine: Engine,
  experts: string | undefined,
): Promise<Response> {
  const text = await metrics.text() + (experts === "1" ? await expertMetricsText(engine) : "");
  return new Response(text, { headers: { "content-type": metrics.contentType } });
}

/**
 * The tokens that were routed to each expert: thousands of series, so they are apart. "" while
 * there is no engine to ask. `layer` counts the layers that have experts, from 0.
 */
async function expertMetricsText(engine: Engine): Promise<string> {
  if (engine.state === "recovering" || engine.state === "failed") return "";
  const { expertCount, tokens } = await engine.expertUse();
  const lines = [
    "# HELP kedge_expert_tokens_total Tokens routed to each expert",
    "# TYPE kedge_expert_tokens_total counter",
  ];
  tokens.forEach((count, index) => {
    const layer = Math.floor(index / expertCount);
    lines.push(
      `kedge_expert_tokens_total{layer="${layer}",expert="${index % expertCount}"} ${count}`,
    );
  });
  return `${lines.join("\n")}\n`;
}
