/** POST /v1/completions */
import { encodeText } from "../chat/encode.ts";
import { TextStream } from "../chat/text_stream.ts";
import type { GenerateRequest, TokenLogprob } from "../engine/engine.ts";
import { DEFAULT_COMPLETION_TOKENS, SLICE_ITEMS, STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { readJsonObject } from "./body.ts";
import {
  type AppDependencies,
  checkModel,
  choicesOf,
  generateText,
  planGeneration,
  progressOf,
  responseId,
  type TextEvent,
  timingsOf,
  unixSeconds,
  usageOf,
} from "./generation.ts";
import { grammarOf } from "./grammar.ts";
import { answerJson } from "./json_answer.ts";
import { answerWithin, estimateTokens, type Lifetime } from "./lifetime.ts";
import { LegacyLogprobs } from "./logprobs.ts";
import { type CompletionRequest, parseCompletionRequest } from "./schema.ts";
import {
  mergeSources,
  type Source,
  type StartedSource,
  startSource,
  valuesOf,
  waitFor,
} from "./sources.ts";
import { aroundHoles, HOLE, serverSentEvent, streamResponse } from "./stream.ts";

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
  readonly life: Lifetime;
  readonly fields: CompletionRequest;
  /** One request a choice: those of the first prompt, of the second, ... */
  readonly requests: readonly GenerateRequest[];
  readonly promptTokens: number;
  readonly head: Readonly<Record<string, unknown>>;
}

export function answerCompletion(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const job = await readJob(deps, http, life);
    return job.fields.stream ? await streamed(job) : await whole(job);
  });
}

async function readJob(
  deps: AppDependencies,
  http: Request,
  life: Lifetime,
): Promise<CompletionJob> {
  const { model } = deps.engine;
  const { slices } = life;
  const body = await readJsonObject(http, life.bodyReadMs, slices);
  const fields = parseCompletionRequest(body, model.vocabularySize);
  checkModel(deps.engine, fields.model);
  const choices = fields.n ?? 1;
  life.hold(
    fields.prompt.flatMap((prompt) =>
      Array(choices).fill(
        typeof prompt === "string" ? estimateTokens(prompt.length) : prompt.length,
      )
    ),
  );
  const requests: GenerateRequest[] = [];
  let promptTokens = 0;
  // Written once: a schema may be long, and the prompts many.
  const grammar = grammarOf(fields);
  const { owner } = life;
  for (const prompt of fields.prompt) {
    const promptIds = typeof prompt === "string"
      ? await encodeText(deps.tokenizer, prompt, false, slices)
      : Uint32Array.from(prompt);
    const wantedTokens = fields.max_tokens ?? DEFAULT_COMPLETION_TOKENS;
    const logprobs = fields.logprobs ?? null;
    // A seed that nobody chose is one for all prompts, so that the answer can name it.
    const seed = requests[0]?.sampling.seed ?? fields.seed;
    const seeded = { ...fields, seed };
    const request = {
      ...planGeneration(deps, seeded, promptIds, "prompt", wantedTokens, grammar, owner),
      logprobs,
      promptLogprobs: fields.echo === true && logprobs !== null,
    };
    requests.push(...choicesOf(request, choices));
    promptTokens += promptIds.length;
  }
  return {
    deps,
    life,
    fields,
    requests,
    promptTokens,
    head: {
      id: responseId("cmpl-"),
      object: "text_completion",
      created: unixSeconds(),
      model: model.id,
      seed: requests[0]!.sampling.seed,
    },
  };
}

async function whole(job: CompletionJob): Promise<Response> {
  const choices = job.requests.map((_, index) => ({
    index,
    text: "",
    logprobs: job.fields.logprobs === null || job.fields.logprobs === undefined
      ? null
      : new LegacyLogprobs(),
    finish_reason: null as string | null,
  }));
  const ends: EndEvent[] = [];
  for await (const piece of valuesOf(allPieces(job), job.life)) {
    const choice = choices[piece.index]!;
    choice.text += piece.text;
    if (piece.logprobs !== null) choice.logprobs?.append(piece.logprobs);
    if (piece.end === null) continue;
    choice.finish_reason = piece.end.reason;
    ends.push(piece.end);
  }
  return await answerJson({ ...job.head, choices, ...countsOf(job, ends) }, job.life.slices);
}

async function streamed(job: CompletionJob): Promise<Response> {
  const pieces = allPieces(job);
  const started = await startSource(pieces, job.life, STREAM_STATUS_WAIT_MS);
  return streamResponse(completionChunks(job, started), pieces, job.life);
}

/** The chunks as events. */
function* completionChunks(job: CompletionJob, pieces: StartedSource<Piece>): Source<string> {
  const usageWanted = job.fields.stream_options?.include_usage === true;
  const ends: EndEvent[] = [];
  const chunk = ({ index, text, logprobs, end }: Piece) => ({
    ...job.head,
    choices: [{ index, text, logprobs, finish_reason: end?.reason ?? null }],
    ...(usageWanted && { usage: null }),
  });
  // Most chunks differ by their text alone.
  const aroundText = job.requests.map((_, index) =>
    aroundHoles(serverSentEvent(chunk({ index, text: HOLE, logprobs: null, end: null })))
  );
  for (const piece of pieces) {
    if (piece === null) {
      yield null;
      continue;
    }
    const { index, text, logprobs, progress, end } = piece;
    if (logprobs === null && progress === undefined && end === null) {
      const around = aroundText[index]!;
      yield around[0] + JSON.stringify(text) + around[1];
      continue;
    }
    if (end !== null) ends.push(end);
    const timings = ends.length === job.requests.length && countsOf(job, ends).timings;
    yield serverSentEvent({
      ...chunk(piece),
      ...(timings && { timings }),
      ...(progress && progressOf(progress, job.life.began)),
    });
  }
  if (usageWanted) {
    yield serverSentEvent({ ...job.head, choices: [], usage: countsOf(job, ends).usage });
  }
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

/** The pieces of all prompts as they come; as many run at a time as there are slots. */
function allPieces(job: CompletionJob): Source<Piece> {
  const starts = job.requests.map((request, index) => () => pieces(job, request, index));
  return starts.length === 1 ? starts[0]!() : mergeSources(starts, job.deps.engine.model.slots);
}

function* pieces(job: CompletionJob, request: GenerateRequest, index: number): Source<Piece> {
  const { deps, fields, life } = job;
  const options = { stops: fields.stop, tools: null };
  let before = 0;
  if (fields.echo && !request.promptLogprobs) yield* echoed(job, request, index, null);
  for (const event of generateText(deps, request, options, life)) {
    if (event === null) {
      yield null;
    } else if (event.type === "prompt") {
      before = yield* echoed(job, request, index, event.logprobs);
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

/**
 * The prompt as text, with the log-probabilities of its tokens 1.. when they were asked for, in
 * pieces that take a fraction of a millisecond. Returns its length in code points.
 */
function* echoed(
  { deps: { tokenizer }, life }: CompletionJob,
  { promptIds }: GenerateRequest,
  index: number,
  given: readonly TokenLogprob[] | null,
): Generator<Piece | null, number> {
  const stream = new TextStream(tokenizer, { skipSpecial: false, stops: [] });
  try {
    for (let start = 0; start < promptIds.length; start += SLICE_ITEMS) {
      const logprobs = given === null ? null : new LegacyLogprobs();
      // Joined at once: a text put together of single tokens is slow for the garbage collector.
      const texts: string[] = [];
      const end = Math.min(start + SLICE_ITEMS, promptIds.length);
      for (let at = start; at < end; at++) {
        const id = promptIds[at]!;
        logprobs?.add(tokenizer, id, at === 0 ? null : given![at - 1]!, stream.characters);
        texts.push(stream.push(id));
      }
      if (end === promptIds.length) texts.push(stream.end());
      yield { index, text: texts.join(""), logprobs, end: null };
      if (life.slices.isUsedUp) yield* waitFor(life.slices.turn(), life);
    }
    return stream.characters;
  } finally {
    stream.free();
  }
}
