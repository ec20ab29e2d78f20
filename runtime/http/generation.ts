/** From a checked request to text events: what the chat and the completions route share. */
import { type AnswerOptions, AnswerStream, type CallPiece } from "../chat/answer_stream.ts";
import type { ChatTemplate } from "../chat/template_file.ts";
import type {
  Engine,
  FinishReason,
  GenerateRequest,
  Timings,
  TokenLogprob,
} from "../engine/engine.ts";
import { NotFoundError, RequestError } from "../errors.ts";
import type { Grammar } from "../../wasm/grammar.ts";
import type { Tokenizer } from "../../wasm/text.ts";
import type { Owner } from "./auth.ts";
import type { Lifetime } from "./lifetime.ts";
import type { GenerationFields } from "./schema.ts";
import type { Source } from "./sources.ts";

/** Everything that the routes work with. */
export interface AppDependencies {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** What the model folder asks for where a request says nothing. */
  readonly generation: {
    readonly temperature: number;
    readonly topP: number;
    readonly topK: number;
    readonly minP: number;
    /** Any of these ends a generation. */
    readonly eosIds: readonly number[];
  };
  /** The operator's chat template; null: Kimi's. */
  readonly template?: ChatTemplate | null;
  /** Milliseconds that a request may take from its arrival to the end of its answer; null: any. */
  readonly requestTimeoutMs?: number | null;
}

/** A generated token, and where in the completion's text it begins, in code points. */
export interface PlacedToken {
  readonly id: number;
  readonly logprob: TokenLogprob | null;
  readonly offset: number;
}

/** `choice`: which of an answer's choices it belongs to. */
export type TextEvent =
  | {
    readonly type: "prompt";
    readonly choice: number;
    readonly logprobs: readonly TokenLogprob[];
  }
  | {
    readonly type: "progress";
    readonly choice: number;
    readonly processed: number;
    readonly total: number;
  }
  /** `tokens`: those taken since the last delta, in step with what the engine delivered. */
  | {
    readonly type: "delta";
    readonly choice: number;
    readonly text: string;
    readonly call: CallPiece | null;
    readonly tokens: readonly PlacedToken[];
  }
  /** Always the last event. */
  | {
    readonly type: "end";
    readonly choice: number;
    readonly reason: FinishReason;
    readonly completionTokens: number;
    /** Tool calls in the answer. */
    readonly calls: number;
    /** The stop string that ended the text, or null. */
    readonly stopped: string | null;
    /** null when a stop string ended the generation before the engine did. */
    readonly timings: Timings | null;
  };

/** Throws NotFoundError when a request names another model. */
export function checkModel(engine: Engine, name: string | null | undefined): void {
  if (name === null || name === undefined || name === engine.model.id) return;
  throw new NotFoundError(
    `find model: wanted "${engine.model.id}", found another name`,
    "model",
    "model_not_found",
  );
}

/**
 * The engine's request. `wantedTokens`: null asks for all that fits. Throws RequestError for a
 * prompt that leaves no room in the context; more tokens than there is room for are cut to fit.
 */
export function planGeneration(
  deps: AppDependencies,
  fields: GenerationFields,
  promptIds: Uint32Array,
  promptField: string,
  wantedTokens: number | null,
  grammar: Grammar | null,
  owner: Owner,
): GenerateRequest {
  const { generation, engine } = deps;
  const room = engine.model.contextLength - promptIds.length;
  if (room < 0 || (room === 0 && wantedTokens !== 0)) {
    throw new RequestError(
      `read field "${promptField}": wanted a prompt that leaves room in the context of ` +
        `${engine.model.contextLength} tokens, found ${promptIds.length} tokens`,
      promptField,
      "context_length_exceeded",
    );
  }
  const { seed } = fields;
  return {
    promptIds,
    maxTokens: Math.min(wantedTokens ?? room, room),
    sampling: {
      temperature: fields.temperature ?? generation.temperature,
      topP: fields.top_p ?? generation.topP,
      topK: Math.max(0, fields.top_k ?? generation.topK),
      minP: fields.min_p ?? generation.minP,
      typicalP: fields.typical_p ?? fields.typical ?? 1,
      frequencyPenalty: fields.frequency_penalty ?? 0,
      presencePenalty: fields.presence_penalty ?? 0,
      repetitionPenalty: fields.repetition_penalty ?? fields.repeat_penalty ?? 1,
      logitBias: fields.logit_bias,
      seed: seed === null || seed === undefined || seed < 0 ? randomSeed() : seed,
    },
    minTokens: fields.min_tokens ?? 0,
    grammar,
    stopIds: [...fields.ignore_eos ? [] : generation.eosIds, ...fields.stop_token_ids ?? []],
    logprobs: null,
    promptLogprobs: false,
    progress: fields.stream === true && fields.return_progress === true,
    owner: owner.name,
  };
}

/** `count` requests that differ by their seeds alone. */
export function choicesOf(request: GenerateRequest, count: number): GenerateRequest[] {
  const { sampling } = request;
  const seedOf = (choice: number) => (sampling.seed + choice) % Number.MAX_SAFE_INTEGER;
  return Array.from(
    { length: count },
    (_, choice) =>
      choice === 0 ? request : { ...request, sampling: { ...sampling, seed: seedOf(choice) } },
  );
}

function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  return (high >>> 11) * 2 ** 32 + low;
}

/**
 * Runs a request and delivers its text and tool calls. Throws the signal's reason after an abort;
 * ending the iteration frees the engine's slot.
 */
export function* generateText(
  deps: AppDependencies,
  request: GenerateRequest,
  options: AnswerOptions,
  life: Lifetime,
  choice = 0,
): Source<TextEvent> {
  const stopIds = new Set(request.stopIds);
  const events = deps.engine.generate(request, life.signal);
  events.onReady = () => life.wake();
  const stream = new AnswerStream(deps.tokenizer, options);
  let tokens: PlacedToken[] = [];
  let count = 0;
  const endOf = (reason: FinishReason, timings: Timings | null): TextEvent => {
    const { calls, stopped } = stream;
    return { type: "end", choice, reason, completionTokens: count, calls, stopped, timings };
  };
  try {
    while (true) {
      const event = events.take();
      if (event === null) {
        yield null;
      } else if (event.type === "token") {
        count++;
        const { id, logprob } = event;
        tokens.push({ id, logprob, offset: stream.characters });
        // The text of a token that ends the generation belongs to nobody.
        if (stopIds.has(id)) continue;
        const piece = stream.push(id);
        const isOver = stream.stopped !== null;
        if (piece.text === "" && piece.call === null && !isOver) continue;
        yield { type: "delta", choice, text: piece.text, call: piece.call, tokens };
        tokens = [];
        if (isOver) return yield endOf("stop", null);
      } else if (event.type !== "done") {
        yield { ...event, choice };
      } else {
        const piece = stream.end();
        const reason = stream.stopped === null ? event.reason : "stop";
        if (piece.text !== "" || piece.call !== null || tokens.length > 0) {
          yield { type: "delta", choice, ...piece, tokens };
        }
        return yield endOf(reason, event.timings);
      }
    }
  } finally {
    events.close();
    stream.free();
  }
}

/** OpenAI's `usage`. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

export function usageOf(promptTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    // Nothing of a prompt is kept for the next request.
    prompt_tokens_details: { cached_tokens: 0 },
  };
}

/** llama-server's `timings`: milliseconds and tokens a second of both phases. */
export function timingsOf(timings: Timings, promptTokens: number, completionTokens: number) {
  return {
    prompt_n: promptTokens,
    prompt_ms: timings.prefillMs,
    prompt_per_token_ms: ratio(timings.prefillMs, promptTokens),
    prompt_per_second: ratio(promptTokens * 1000, timings.prefillMs),
    predicted_n: completionTokens,
    predicted_ms: timings.decodeMs,
    predicted_per_token_ms: ratio(timings.decodeMs, completionTokens),
    predicted_per_second: ratio(completionTokens * 1000, timings.decodeMs),
    queued_ms: timings.queuedMs,
  };
}

function ratio(dividend: number, divisor: number): number {
  return divisor > 0 ? dividend / divisor : 0;
}

/** llama-server's `prompt_progress`; nothing of a prompt is cached. */
export function progressOf(
  { processed, total }: { readonly processed: number; readonly total: number },
  began: number,
) {
  const time_ms = Math.round(performance.now() - began);
  return { prompt_progress: { total, cache: 0, processed, time_ms } };
}

/** Random and unguessable, as clients may log it next to the answer. */
export function responseId(prefix: string): string {
  return prefix + crypto.randomUUID().replaceAll("-", "");
}

export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
