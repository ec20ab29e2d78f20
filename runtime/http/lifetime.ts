/** One generating request, from its place in the queue to the end of its answer. */
import type { Engine, Place } from "../engine/engine.ts";
import { type KedgeError, RequestError, TimeoutError } from "../errors.ts";
import { BODY_READ_MS } from "../limits.ts";
import { Slices } from "../slices.ts";
import { type Owner, ownerOf } from "./auth.ts";
import { checkDeclaredSize } from "./body.ts";

/** Nobody waits for the answer any more, so nobody reads this either. */
export class ClientLeftError extends RequestError {
  override readonly status = 499;
  constructor() {
    super("answer request: wanted a client that waits, found that it left");
  }
}

/** Characters of a prompt that make a token, about: for estimates only. */
const CHARACTERS_PER_TOKEN = 4;

export function estimateTokens(characters: number): number {
  return Math.ceil(characters / CHARACTERS_PER_TOKEN);
}

/** What a lifetime needs of the application's dependencies. */
interface LifetimeDependencies {
  readonly engine: Engine;
  readonly requestTimeoutMs?: number | null;
}

export class Lifetime {
  readonly owner: Owner;
  /** In milliseconds of performance.now(). */
  readonly began = performance.now();
  readonly slices: Slices;
  /** Called when the answer may go on: a source that had nothing may have something. */
  wake: () => void = () => {};
  readonly #engine: Engine;
  readonly #http: Request;
  readonly #timeoutMs: number | null;
  readonly #abort = new AbortController();
  readonly #leave = () => this.stop(new ClientLeftError());
  #places: Place[] = [];
  #goesOn = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Takes the request's place in the queue, by what its headers say: nothing of its body has been
   * read. Throws TooLargeError, OverloadedError or RateLimitError.
   */
  constructor(engine: Engine, http: Request, timeoutMs: number | null) {
    this.#engine = engine;
    this.#http = http;
    this.#timeoutMs = timeoutMs;
    this.owner = ownerOf(http);
    this.slices = new Slices(this.signal);
    this.hold([estimateTokens(checkDeclaredSize(http))]);
    http.signal.addEventListener("abort", this.#leave);
    if (http.signal.aborted) this.#leave();
    if (timeoutMs !== null) this.#timer = setTimeout(() => this.#timeOut(timeoutMs), timeoutMs);
  }

  /** Fires when the answer is not wanted or not waited for any more; its reason is a KedgeError. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Holds one place a prompt in place of those held now. Throws as the constructor does. */
  hold(promptTokens: readonly number[]): void {
    this.#release();
    const { name, limits } = this.owner;
    for (const tokens of promptTokens) {
      this.#places.push(this.#engine.reserve(name, limits, tokens));
    }
  }

  /** Whether the answer is a stream under way. */
  get goesOn(): boolean {
    return this.#goesOn;
  }

  /**
   * The answer goes on as a stream: who writes it ends the lifetime. From now on the cancel of its
   * body tells that the client left.
   */
  goOn(): void {
    this.#goesOn = true;
    this.#http.signal.removeEventListener("abort", this.#leave);
  }

  stop(reason: KedgeError): void {
    this.#abort.abort(reason);
  }

  /** Resolves at the next wake(). */
  woken(): Promise<void> {
    return new Promise((resolve) => this.wake = resolve);
  }

  /** Milliseconds that the body may take to arrive. */
  get bodyReadMs(): number {
    return Math.min(BODY_READ_MS, this.#timeoutMs ?? Infinity);
  }

  /** The answer has ended. */
  end(): void {
    clearTimeout(this.#timer);
    this.#http.signal.removeEventListener("abort", this.#leave);
    this.#release();
  }

  #release(): void {
    for (const place of this.#places.splice(0)) place.release();
  }

  #timeOut(milliseconds: number): void {
    this.stop(
      new TimeoutError(
        `answer request: wanted an end within ${milliseconds} ms, found none`,
        null,
        "request_timeout",
      ),
    );
  }
}

/** Answers one request within its lifetime, which ends here unless the answer goes on. */
export async function answerWithin(
  { engine, requestTimeoutMs = null }: LifetimeDependencies,
  http: Request,
  answer: (life: Lifetime) => Promise<Response>,
): Promise<Response> {
  const life = new Lifetime(engine, http, requestTimeoutMs);
  try {
    return await answer(life);
  } finally {
    if (!life.goesOn) life.end();
  }
}
