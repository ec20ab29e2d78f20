/** An Engine that follows a script, and the app over it. */
import { equal } from "node:assert/strict";
import type { Hono } from "hono";
import type {
  Engine,
  EngineState,
  EngineStats,
  FinishReason,
  GenerateEvent,
  GenerateRequest,
  ModelInfo,
  OwnerLimits,
  Place,
  TokenLogprob,
} from "../../runtime/engine/engine.ts";
import { EventStream } from "../../runtime/engine/event_stream.ts";
import { OverloadedError, RateLimitError } from "../../runtime/errors.ts";
import { createApp } from "../../runtime/http/app.ts";
import { tinyGeneration, tinyTokenizer, tinyVocabularySize } from "../tools/tiny_text.ts";
import { checked } from "./checked_app.ts";

/** What the fake does with a request. */
export interface Script {
  /** The tokens it "generates"; a text stands for its ids. Default: `Hello there!` and the end. */
  readonly output?: string | readonly number[];
  /** Ends with the stop token, unless maxTokens comes first. Default true. */
  readonly ends?: boolean;
  /** Milliseconds before each token. */
  readonly tokenMs?: number;
  /** Prompt tokens that are said to be computed, in order, when asked. */
  readonly progress?: readonly number[];
  /** Thrown before the token of this index; index -1: at once. */
  readonly error?: { readonly at: number; readonly value: unknown };
}

export class FakeEngine implements Engine {
  readonly model: ModelInfo;
  readonly stats: EngineStats = {
    running: 0,
    queued: 0,
    paused: 0,
    queuedTokens: 0,
    steps: 0,
    lastStepDispatches: 0,
    freeSlots: 4,
    freePages: 10,
    pages: 10,
    preemptions: 0,
    promptTokens: 0,
    generatedTokens: 0,
    prefillStepMs: 0,
    decodeStepMs: 0,
    deviceWaitMs: 0,
  };
  state: EngineState = "ready";
  readonly restarts = 0;
  failure: Error | null = null;
  /** Places held now; with `placesMax` of them the next is refused. */
  places = 0;
  placesMax = Infinity;
  /** Who reserved, in order. */
  readonly reserved: { readonly owner: string; readonly promptTokens: number }[] = [];
  /** Every request that was started, in order. */
  readonly requests: GenerateRequest[] = [];
  /** Tokens handed out so far. */
  delivered = 0;
  /** Requests under way, and the most there ever were. */
  running = 0;
  mostRunning = 0;
  aborted = 0;
  readonly #script: (request: GenerateRequest) => Script;

  constructor(script: Script | ((request: GenerateRequest) => Script) = {}, contextLength = 8192) {
    this.#script = typeof script === "function" ? script : () => script;
    this.model = {
      id: "kedge-tiny",
      created: 1_700_000_000,
      contextLength,
      vocabularySize: tinyVocabularySize,
      parameterCount: 26_000_000,
      weightBytes: 29_000_000,
      deviceBytes: 40_000_000,
      loadSeconds: 1,
      slots: 4,
      device: "cpu",
      deviceDescription: "fake",
      isSoftware: false,
    };
  }

  reserve(owner: string, limits: OwnerLimits, promptTokens: number): Place {
    if (this.state !== "ready") throw new OverloadedError(`queue the request: ${this.state}`, 3);
    if (limits.requests !== null && this.places >= limits.requests) {
      throw new RateLimitError("queue the request: the key has its fill", 5);
    }
    if (this.places >= this.placesMax) throw new OverloadedError("queue the request: full", 7);
    this.reserved.push({ owner, promptTokens });
    this.places++;
    let held = true;
    return {
      release: () => {
        if (held) this.places--;
        held = false;
      },
    };
  }

  drain(): void {
    this.state = "draining";
  }

  expertUse() {
    return Promise.resolve({ expertCount: 2, tokens: Float64Array.of(3, 4) });
  }

  generate(request: GenerateRequest, signal?: AbortSignal): EventStream {
    this.requests.push(request);
    this.running++;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    const leave = () => this.aborted++;
    signal?.addEventListener("abort", leave);
    return new ScriptedEvents(this.#run(request, this.#script(request)), signal, () => {
      signal?.removeEventListener("abort", leave);
      this.running--;
    });
  }

  *#run(
    request: GenerateRequest,
    { output = "Hello there!", ends = true, tokenMs = 0, progress = [], error }: Script,
  ): Generator<GenerateEvent | Pause> {
    if (error?.at === -1) throw error.value;
    const ids = typeof output === "string" ? Array.from(tinyTokenizer.encode(output)) : [...output];
    if (ends) ids.push(request.stopIds[0]!);
    for (const processed of request.progress ? progress : []) {
      yield { type: "progress", processed, total: request.promptIds.length };
    }
    if (request.promptLogprobs) {
      const logprobs = Array.from(request.promptIds.subarray(1), (id) => logprobOf(request, id)!);
      yield { type: "prompt", logprobs };
    }
    let reason: FinishReason = "length";
    for (const [index, id] of ids.slice(0, request.maxTokens).entries()) {
      if (error?.at === index) throw error.value;
      if (tokenMs > 0) yield { type: "pause", milliseconds: tokenMs };
      this.delivered++;
      yield { type: "token", id, logprob: logprobOf(request, id) };
      if (!request.stopIds.includes(id)) continue;
      reason = "stop";
      break;
    }
    yield { type: "done", reason, timings: { queuedMs: 1, prefillMs: 20, decodeMs: 40 } };
  }

  async close(): Promise<void> {}
}

/** A fixed rule, so that tests can say what to expect: -id/1000, and the n lowest ids as best. */
export function logprobOf(request: GenerateRequest, id: number): TokenLogprob | null {
  if (request.logprobs === null) return null;
  const top = Array.from({ length: request.logprobs }, (_, best) => ({
    id: best + 40,
    logprob: -best / 1000,
  }));
  return { id, logprob: -id / 1000, top };
}

interface Pause {
  readonly type: "pause";
  readonly milliseconds: number;
}

/** The events of a script, made as they are taken. */
class ScriptedEvents extends EventStream {
  readonly #script: Generator<GenerateEvent | Pause>;
  readonly #signal: AbortSignal | undefined;
  readonly #onEnd: () => void;
  readonly #wake = () => this.onReady();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isPaused = false;
  #isOver = false;

  constructor(
    script: Generator<GenerateEvent | Pause>,
    signal: AbortSignal | undefined,
    onEnd: () => void,
  ) {
    super();
    this.#script = script;
    this.#signal = signal;
    this.#onEnd = onEnd;
    signal?.addEventListener("abort", this.#wake);
  }

  override take(): GenerateEvent | null {
    this.#signal?.throwIfAborted();
    if (this.#isPaused || this.#isOver) return null;
    const { done, value } = this.#script.next();
    if (done === true) throw new Error("take: the script has no end");
    if (value.type !== "pause") {
      if (value.type === "done") this.close();
      return value;
    }
    this.#isPaused = true;
    this.#timer = setTimeout(() => {
      this.#isPaused = false;
      this.onReady();
    }, value.milliseconds);
    return null;
  }

  override close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#wake);
    this.#onEnd();
  }
}

/** The app, whose answers are held to the API's document as they are read. */
export function appOver(engine: Engine, requestTimeoutMs: number | null = null): Hono {
  return checked(uncheckedAppOver(engine, requestTimeoutMs));
}

/** The app by itself, where time is measured: checking takes longer than a large answer. */
export function uncheckedAppOver(engine: Engine, requestTimeoutMs: number | null = null): Hono {
  const generation = tinyGeneration;
  return createApp({ engine, tokenizer: tinyTokenizer, generation, requestTimeoutMs });
}

/** Runs a test against an app over a fake engine on a real port; all places are free at its end. */
export async function withServer(
  script: Script | ((request: GenerateRequest) => Script),
  test: (url: string, engine: FakeEngine) => Promise<void>,
): Promise<void> {
  const engine = new FakeEngine(script);
  const app = appOver(engine);
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, app.fetch);
  try {
    await test(`http://127.0.0.1:${server.addr.port}`, engine);
    equal(engine.places, 0);
  } finally {
    await server.shutdown();
  }
}

/** Posts a body: an object as JSON, a string as it is. */
export function post(app: Hono, path: string, body: unknown): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return Promise.resolve(app.request(path, { method: "POST", body: text }));
}

/** The values of a stream's events; `[DONE]` stays text. Fails on anything that is no event. */
// deno-lint-ignore no-explicit-any
export async function eventsOf(response: Response): Promise<any[]> {
  const events = (await response.text()).split("\n\n");
  if (events.pop() !== "") throw new Error("read events: wanted an empty line at the end");
  return events.map((event) => {
    if (!event.startsWith("data: ")) throw new Error("read events: wanted a data line");
    const data = event.slice("data: ".length);
    return data === "[DONE]" ? data : JSON.parse(data);
  });
}
