/** What the HTTP layer and the command line see of the engine. */

import type { EventStream } from "./event_stream.ts";
import type { HeldGrammar } from "./grammars.ts";

/** What a client may ask of the sampler. */
export interface SamplingParameters {
  /** 0 picks the largest logit; else logits are divided by it. */
  readonly temperature: number;
  /** Keeps the k most probable tokens; 0 keeps all. */
  readonly topK: number;
  /** Keeps the smallest set of most probable tokens whose probabilities sum to at least this. */
  readonly topP: number;
  /** Drops tokens less probable than this share of the most probable one. */
  readonly minP: number;
  /**
   * Keeps the tokens whose surprise is nearest the expected one until their probabilities sum to at
   * least this (Meister et al. 2022, locally typical sampling); 1 keeps all.
   */
  readonly typicalP: number;
  /** Subtracted from a generated token's logit for each time it was generated. */
  readonly frequencyPenalty: number;
  /** Subtracted from the logit of every token that was generated. */
  readonly presencePenalty: number;
  /** Divides positive and multiplies negative logits of tokens in prompt or output; 1 is none. */
  readonly repetitionPenalty: number;
  /** Added to the logit of each id, each id once. */
  readonly logitBias: readonly (readonly [id: number, bias: number])[];
  /** Seeds this request's own random stream; 0 <= seed < 2^53. */
  readonly seed: number;
}

export interface GenerateRequest {
  /** At least one id, each below the vocabulary size. */
  readonly promptIds: Uint32Array;
  /** Most tokens to generate; 0 only processes the prompt. promptIds.length + maxTokens must not
   * exceed the context. */
  readonly maxTokens: number;
  readonly sampling: SamplingParameters;
  /** None of `stopIds` is chosen before this many tokens were generated. */
  readonly minTokens: number;
  /** What the text must be, up to its end; null: anything. */
  readonly grammar: HeldGrammar | null;
  /** Generation ends after any of these; the id is delivered as the last token. */
  readonly stopIds: readonly number[];
  /**
   * null: no log-probabilities. n: those of each generated token and of the n best at its place.
   */
  readonly logprobs: number | null;
  /** Also log-probabilities of the prompt's own tokens (needs logprobs). */
  readonly promptLogprobs: boolean;
  /** Also `progress` events while the prompt is computed. */
  readonly progress: boolean;
  /** Whose request it is: the scheduler is fair between owners. "" where there are no keys. */
  readonly owner: string;
}

/**
 * Log-probability (natural, after penalties and biases, before temperature and filters) of one
 * token and the best at its place.
 */
export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
  /** Best first. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

export type FinishReason = "stop" | "length";

export type GenerateEvent =
  /**
   * The prompt's tokens 1.. (token 0 has no probability), once, before any token; only when asked.
   */
  | { readonly type: "prompt"; readonly logprobs: readonly TokenLogprob[] }
  /** Prompt tokens computed so far, after each step of the prompt; only when asked. */
  | { readonly type: "progress"; readonly processed: number; readonly total: number }
  | { readonly type: "token"; readonly id: number; readonly logprob: TokenLogprob | null }
  /** Always the last event of a request that did not throw. */
  | { readonly type: "done"; readonly reason: FinishReason; readonly timings: Timings };

export interface Timings {
  readonly queuedMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
}

export interface ModelInfo {
  /** The name clients use: the model folder's name. */
  readonly id: string;
  /** Unix seconds at which the model was loaded. */
  readonly created: number;
  /** Most tokens of prompt and completion together. */
  readonly contextLength: number;
  readonly vocabularySize: number;
  readonly parameterCount: number;
  readonly weightBytes: number;
  /** Everything allocated on the device: weights, states, latents, buffers of a step. */
  readonly deviceBytes: number;
  readonly device: string;
  readonly deviceDescription: string;
  /** A software adapter: steps take seconds. */
  readonly isSoftware: boolean;
  /** From the start of loading until the first request could run. */
  readonly loadSeconds: number;
  /** Sequences that run at once. */
  readonly slots: number;
}

export interface EngineStats {
  readonly running: number;
  readonly queued: number;
  /** Of them those whose reader fell behind. */
  readonly paused: number;
  /** Prompt tokens that waiting and running requests have still to be computed. */
  readonly queuedTokens: number;
  /** Steps run since the start. */
  readonly steps: number;
  /** GPU dispatches of the last step; 0 on the cpu device. */
  readonly lastStepDispatches: number;
  readonly freeSlots: number;
  readonly freePages: number;
  readonly pages: number;
  /** Since the start: sequences that gave way and started again. */
  readonly preemptions: number;
  /** Since the start: rows of prompts and of generated tokens that steps computed. */
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Since the start, in milliseconds: all steps, and the waits for the device in them. */
  readonly prefillStepMs: number;
  readonly decodeStepMs: number;
  readonly deviceWaitMs: number;
}

/** "ready" takes requests; "recovering" will again; "draining" and "failed" will not. */
export type EngineState = "ready" | "recovering" | "draining" | "failed";

/** A place in the queue, taken before the prompt is encoded. */
export interface Place {
  /** Gives it back; further calls do nothing. */
  release(): void;
}

/** What one owner may use at once. */
export interface OwnerLimits {
  /** Requests at once; null: no limit of its own. */
  readonly requests: number | null;
}

export interface Engine {
  readonly model: ModelInfo;
  readonly stats: EngineStats;
  readonly state: EngineState;
  /** Why the engine can't run requests any more, or null. */
  readonly failure: Error | null;
  /** Restarts since the start. */
  readonly restarts: number;
  /**
   * Takes a place in the bounded queue, before any work is done for a request; whoever took it
   * gives it back when the request has been answered. `promptTokens`: an estimate. Throws
   * OverloadedError when the queue is full or the engine takes no requests, and RateLimitError when
   * the owner has its fill; both say when to try again.
   */
  reserve(owner: string, limits: OwnerLimits, promptTokens: number): Place;
  /**
   * Runs one request. Throws the KedgeError of a request that can't be taken, and the reason of a
   * `signal` that was aborted. Aborting it later, or closing the events early, frees its slot. A
   * reader that does not take its events pauses its own sequence, and is cut off after
   * SLOW_READER_MS.
   */
  generate(request: GenerateRequest, signal?: AbortSignal): EventStream;
  /** Takes no new requests from now on; those under way run on. */
  drain(): void;
  /**
   * Tokens routed to each expert since the engine (re)started, [MoE layers in order][expertCount].
   */
  expertUse(): Promise<{ readonly expertCount: number; readonly tokens: Float64Array }>;
  /** Ends the Worker; running requests fail. */
  close(): Promise<void>;
}
