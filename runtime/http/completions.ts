/** POST /v1/completions */
import { encodeText } from "../chat/encode.ts";
import { TextStream } from "../chat/text_stream.ts";
import type { GenerateRequest, Place } from "../engine/engine.ts";
import { DEFAULT_COMPLETION_TOKENS, STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { ownerOf } from "./auth.ts";
import { readJsonObject } from "./body.ts";
import {
  type AppDependencies,
  checkModel,
  clientLeft,
  generateText,
  planGeneration,
  progressOf,
  reservePlace,
  responseId,
  type TextEvent,
  timingsOf,
  unixSeconds,
  usageOf,
  whileClientWaits,
} from "./generation.ts";
import { LegacyLogprobs } from "./logprobs.ts";
import { mergeSources } from "./merge.ts";
import { type CompletionRequest, parseCompletionRequest } from "./schema.ts";
import { sseResponse, startSource } from "./sse.ts";

type EndEvent = Extract<TextEvent, { type: "end" }>;

type ProgressEvent = Extract<TextEvent, { type: "progress" }>;

/** A part of one choice. */
interface Piece {
  readonly index: number;
  readonly text: string;
  /** Set while the prompt is computed, in pieces without anything else. */
  readonly progress?: ProgressEvent;
  readonly logprobs: LegacyLogprobs | null;
  /** Set in the last piece of a choice. */
  readonly end: EndEvent | null;
}

interface CompletionJob {
  readonly deps: AppDependencies;
  readonly fields: CompletionRequest;
  /** One request a prompt. */
  readonly requests: readonly GenerateRequest[];
  readonly promptTokens: number;
  readonly head: Readonly<Record<string, unknown>>;
  /** In milliseconds of performance.now(). */
  readonly began: number;
}

export async function answerCompletion(deps: AppDependencies, http: Request): Promise<Response> {
  const place = reservePlace(deps, http);
  try {
    const job = await readJob(deps, http);
    if (job.fields.stream) return await streamed(job, place);
    const answer = await whole(job, http);
    place.release();
    return answer;
  } catch (error) {
    place.release();
    throw error;
  }
}

async function readJob(deps: AppDependencies, http: Request): Promise<CompletionJob> {
  const began = performance.now();
  const { model } = deps.engine;
  const fields = parseCompletionRequest(await readJsonObject(http), model.vocabularySize);
  checkModel(deps.engine, fields.model);
  const requests: GenerateRequest[] = [];
  for (const prompt of fields.prompt) {
    const promptIds = typeof prompt === "string"
      ? await encodeText(deps.tokenizer, prompt)
      : Uint32Array.from(prompt);
    const wantedTokens = fields.max_tokens ?? DEFAULT_COMPLETION_TOKENS;
    const logprobs = fields.logprobs ?? null;
    requests.push({
      ...planGeneration(deps, fields, promptIds, "prompt", wantedTokens, ownerOf(http)),
      logprobs,
      promptLogprobs: fields.echo === true && logprobs !== null,
    });
  }
  return {
    deps,
    fields,
    requests,
    promptTokens: requests.reduce((sum, request) => sum + request.promptIds.length, 0),
    head: {
      id: responseId("cmpl-"),
      object: "text_completion",
      created: unixSeconds(),
      model: model.id,
    },
    began,
  };
}

async function whole(job: CompletionJob, http: Request): Promise<Response> {
  const choices = job.requests.map((_, index) => ({
    index,
    text: "",
    logprobs: job.fields.logprobs === null || job.fields.logprobs === undefined
      ? null
      : new LegacyLogprobs(),
    finish_reason: null as string | null,
  }));
  const ends: EndEvent[] = [];
  await whileClientWaits(http, async (signal) => {
    for await (const piece of allPieces(job, signal)) {
      const choice = choices[piece.index]!;
      choice.text += piece.text;
      if (piece.logprobs !== null) choice.logprobs?.append(piece.logprobs);
      if (piece.end === null) continue;
      choice.finish_reason = piece.end.reason;
      ends.push(piece.end);
    }
  });
  if (ends.length < choices.length) return clientLeft();
  return Response.json({ ...job.head, choices, ...countsOf(job, ends) });
}

async function streamed(job: CompletionJob, place: Place): Promise<Response> {
  const abort = new AbortController();
  const pieces = allPieces(job, abort.signal);
  const started = await startSource(pieces, STREAM_STATUS_WAIT_MS);
  return sseResponse(completionChunks(job, started), {
    leave() {
      abort.abort();
      return pieces.return(undefined);
    },
    end: () => place.release(),
  });
}

async function* completionChunks(
  job: CompletionJob,
  pieces: AsyncIterable<Piece>,
): AsyncGenerator<unknown> {
  const usageWanted = job.fields.stream_options?.include_usage === true;
  const ends: EndEvent[] = [];
  for await (const { index, text, logprobs, progress, end } of pieces) {
    if (end !== null) ends.push(end);
    const choice = { index, text, logprobs, finish_reason: end?.reason ?? null };
    const timings = ends.length === job.requests.length && countsOf(job, ends).timings;
    yield {
      ...job.head,
      choices: [choice],
      ...(usageWanted && { usage: null }),
      ...(timings && { timings }),
      ...(progress && progressOf(progress, job.began)),
    };
  }
  if (usageWanted) yield { ...job.head, choices: [], usage: countsOf(job, ends).usage };
}

/** `usage` over all choices; `timings` only of a single one, where the phases are not shared. */
function countsOf(job: CompletionJob, ends: readonly EndEvent[]) {
  const completionTokens = ends.reduce((sum, end) => sum + end.completionTokens, 0);
  const timings = job.requests.length === 1 ? ends[0]?.timings : null;
  return {
    usage: usageOf(job.promptTokens, completionTokens),
    ...(timings && { timings: timingsOf(timings, job.promptTokens, completionTokens) }),
  };
}

/**
 * The pieces of all prompts as they come; as many run at a time as there are slots. When one fails
 * the others are aborted.
 */
async function* allPieces(job: CompletionJob, left: AbortSignal): AsyncGenerator<Piece> {
  const ended = new AbortController();
  const signal = AbortSignal.any([left, ended.signal]);
  const starts = job.requests.map((request, index) => () => pieces(job, request, index, signal));
  try {
    yield* mergeSources(starts, job.deps.engine.model.slots);
  } finally {
    ended.abort();
  }
}

async function* pieces(
  job: CompletionJob,
  request: GenerateRequest,
  index: number,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const { deps, fields } = job;
  let before = 0;
  if (fields.echo && !request.promptLogprobs) {
    yield { index, ...echoed(job, request, null), end: null };
  }
  for await (const event of generateText(deps, request, fields.stop, signal)) {
    if (event.type === "prompt") {
      const echo = echoed(job, request, event.logprobs);
      before = echo.characters;
      yield { index, text: echo.text, logprobs: echo.logprobs, end: null };
    } else if (event.type === "progress") {
      yield { index, text: "", logprobs: null, progress: event, end: null };
    } else if (event.type === "delta") {
      let logprobs: LegacyLogprobs | null = null;
      if (request.logprobs !== null) {
        logprobs = new LegacyLogprobs();
        for (const { id, logprob, offset } of event.tokens) {
          logprobs.add(deps.tokenizer, id, logprob, before + offset);
        }
      }
      yield { index, text: event.text, logprobs, end: null };
    } else {
      yield { index, text: "", logprobs: null, end: event };
    }
  }
}

/** The prompt as text, with the log-probabilities of its tokens 1.. when they were asked for. */
function echoed(
  job: CompletionJob,
  request: GenerateRequest,
  given: Extract<TextEvent, { type: "prompt" }>["logprobs"] | null,
) {
  const { tokenizer } = job.deps;
  const stream = new TextStream(tokenizer, { skipSpecial: false, stops: [] });
  const logprobs = given === null ? null : new LegacyLogprobs();
  try {
    let text = "";
    request.promptIds.forEach((id, at) => {
      logprobs?.add(tokenizer, id, at === 0 ? null : given![at - 1]!, stream.characters);
      text += stream.push(id);
    });
    text += stream.end();
    return { text, logprobs, characters: stream.characters };
  } finally {
    stream.free();
  }
}
