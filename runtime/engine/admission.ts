/**
 * Who may wait. Pure bookkeeping on the main thread, so that a full server says so before it spends
 * anything on a request; times come from the caller.
 */
import { OverloadedError, RateLimitError } from "../errors.ts";
import type { OwnerLimits } from "./engine.ts";

export interface AdmissionLimits {
  /** Sequences that run at once. */
  readonly slots: number;
  /** Requests that may wait beside those that run. */
  readonly queueRequests: number;
  /** Prompt tokens that may wait. One request alone is taken whatever its length. */
  readonly queueTokens: number;
}

/** Share of the newest request in the running mean of what they take. */
const NEWEST_SHARE = 0.2;
/** Retry-After: bounds in seconds. Beyond a few minutes a client should ask elsewhere. */
const RETRY_SECONDS = [1, 300] as const;
/** Assumed until the first request has ended. */
const FIRST_REQUEST_SECONDS = 2;

interface Held {
  readonly owner: string;
  readonly promptTokens: number;
}

export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #held = new Map<number, Held>();
  readonly #byOwner = new Map<string, number>();
  #lastPlace = 0;
  #tokens = 0;
  #meanSeconds = FIRST_REQUEST_SECONDS;

  constructor(limits: AdmissionLimits) {
    this.#limits = limits;
  }

  /** Places held now. */
  get count(): number {
    return this.#held.size;
  }

  /**
   * Takes a place and returns its number. Throws RateLimitError
   * when the owner holds all it may, OverloadedError when the queue is full.
   */
  reserve(owner: string, limits: OwnerLimits, promptTokens: number): number {
    const own = this.#byOwner.get(owner) ?? 0;
    if (limits.requests !== null && own >= limits.requests) {
      throw new RateLimitError(
        `queue the request: wanted fewer than ${limits.requests} requests of this key at once, ` +
          `found ${own}`,
        this.#bounded(this.#meanSeconds),
      );
    }
    const { slots, queueRequests, queueTokens } = this.#limits;
    const requestsMax = slots + queueRequests;
    if (this.#held.size >= requestsMax) {
      this.#refuse(`fewer than ${requestsMax} requests running and waiting`, this.#held.size);
    }
    const tokens = this.#tokens + promptTokens;
    if (this.#held.size > 0 && tokens > queueTokens) {
      this.#refuse(`at most ${queueTokens} prompt tokens running and waiting`, tokens);
    }
    this.#held.set(++this.#lastPlace, { owner, promptTokens });
    this.#byOwner.set(owner, own + 1);
    this.#tokens = tokens;
    return this.#lastPlace;
  }

  /** Gives a place back; one that is not held is ignored. */
  release(place: number): void {
    const held = this.#held.get(place);
    if (held === undefined) return;
    this.#held.delete(place);
    const own = this.#byOwner.get(held.owner)! - 1;
    if (own === 0) this.#byOwner.delete(held.owner);
    else this.#byOwner.set(held.owner, own);
    this.#tokens -= held.promptTokens;
  }

  /** Tells how long a request took from its place in the queue to its end. */
  learn(seconds: number): void {
    this.#meanSeconds += NEWEST_SHARE * (seconds - this.#meanSeconds);
  }

  /** Seconds until those that hold places now have left: what one held its place for on average. */
  retryAfterSeconds(): number {
    const places = this.#limits.slots + this.#limits.queueRequests;
    return this.#bounded(this.#meanSeconds * Math.min(1, this.#held.size / places));
  }

  #bounded(seconds: number): number {
    const [least, most] = RETRY_SECONDS;
    return Math.min(most, Math.max(least, Math.ceil(seconds)));
  }

  #refuse(wanted: string, found: number): never {
    throw new OverloadedError(
      `queue the request: wanted ${wanted}, found ${found}`,
      this.retryAfterSeconds(),
    );
  }
}
