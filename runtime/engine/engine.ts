/** What the HTTP layer and the command line see of the engine. */

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
  /** Generation ends after any of these; the id is delivered as the last token. */
  readonly stopIds: readonly number[];
  /**
   * null: no log-probabilities. n: those of each generated token and of the n best at its place.
   */
  readonly logprobs: number | null;
  /** Also log-probabilities of the prompt's own tokens (needs logprobs). */
  readonly promptLogprobs: boolean;
}

/**
 * Log-probability (natural, before temperature and filters) of one token and the best at its place.
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
  readonly device: string;
  readonly deviceDescription: string;
  /** From the start of loading until the first request could run. */
  readonly loadSeconds: number;
  /** Sequences that run at once. */
  readonly slots: number;
}

export interface EngineStats {
  readonly running: number;
  readonly queued: number;
  /** Steps run since the start. */
  readonly steps: number;
  /** GPU dispatches of the last step; 0 on the cpu device. */
  readonly lastStepDispatches: number;
}

export interface Engine {
  readonly model: ModelInfo;
  readonly stats: EngineStats;
  /** Why the engine can't run requests any more, or null. */
  readonly failure: Error | null;
  /**
   * Runs one request. Events arrive in order; the iterator throws a KedgeError when the request
   * can't be taken or fails. Aborting `signal`, or ending the iteration early, frees its slot;
   * after
   * an abort the iterator ends without a `done` event.
   */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent>;
  /** Ends the Worker; running requests fail. */
  close(): Promise<void>;
}
