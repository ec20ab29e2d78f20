/** POST /v1/chat/completions */
import { encodeSegments } from "../chat/encode.ts";
import { renderChat } from "../chat/template.ts";
import type { GenerateRequest, Place } from "../engine/engine.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { ownerOf } from "./auth.ts";
import { readJsonObject } from "./body.ts";
import {
  type AppDependencies,
  checkModel,
  clientLeft,
  generateText,
  type PlacedToken,
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
import { chatLogprob } from "./logprobs.ts";
import { type ChatRequest, parseChatRequest } from "./schema.ts";
import { sseResponse, startSource } from "./sse.ts";

/** One request on its way to an answer. */
interface ChatJob {
  readonly deps: AppDependencies;
  readonly fields: ChatRequest;
  readonly request: GenerateRequest;
  readonly id: string;
  readonly created: number;
  /** In milliseconds of performance.now(). */
  readonly began: number;
}

export async function answerChat(deps: AppDependencies, http: Request): Promise<Response> {
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

async function readJob(deps: AppDependencies, http: Request): Promise<ChatJob> {
  const began = performance.now();
  const fields = parseChatRequest(await readJsonObject(http), deps.engine.model.vocabularySize);
  checkModel(deps.engine, fields.model);
  const segments = renderChat(fields.messages, fields.tools ?? null);
  const promptIds = await encodeSegments(deps.tokenizer, segments);
  const wantedTokens = fields.max_completion_tokens ?? fields.max_tokens ?? null;
  return {
    deps,
    fields,
    request: {
      ...planGeneration(deps, fields, promptIds, "messages", wantedTokens, ownerOf(http)),
      logprobs: fields.logprobs ? fields.top_logprobs ?? 0 : null,
    },
    id: responseId("chatcmpl-"),
    created: unixSeconds(),
    began,
  };
}

async function whole(job: ChatJob, http: Request): Promise<Response> {
  const { deps, fields, request } = job;
  let content = "";
  const tokens: PlacedToken[] = [];
  const end = await whileClientWaits(http, async (signal) => {
    for await (const event of generateText(deps, request, fields.stop, signal)) {
      if (event.type === "delta") {
        content += event.text;
        tokens.push(...event.tokens);
      } else if (event.type === "end") {
        return event;
      }
    }
    return null;
  });
  if (end === null) return clientLeft();
  const promptTokens = request.promptIds.length;
  return Response.json({
    id: job.id,
    object: "chat.completion",
    created: job.created,
    model: deps.engine.model.id,
    choices: [{
      index: 0,
      message: { role: "assistant", content, refusal: null },
      logprobs: logprobsOf(job, tokens),
      finish_reason: end.reason,
    }],
    usage: usageOf(promptTokens, end.completionTokens),
    ...(end.timings && { timings: timingsOf(end.timings, promptTokens, end.completionTokens) }),
  });
}

async function streamed(job: ChatJob, place: Place): Promise<Response> {
  const abort = new AbortController();
  const texts = generateText(job.deps, job.request, job.fields.stop, abort.signal);
  const started = await startSource(texts, STREAM_STATUS_WAIT_MS);
  const chunks = chatChunks(job, started);
  return sseResponse(chunks, {
    leave() {
      abort.abort();
      return texts.return(undefined);
    },
    end: () => place.release(),
  });
}

async function* chatChunks(job: ChatJob, texts: AsyncIterable<TextEvent>): AsyncGenerator<unknown> {
  const { deps, fields, request } = job;
  const usageWanted = fields.stream_options?.include_usage === true;
  const head = {
    id: job.id,
    object: "chat.completion.chunk",
    created: job.created,
    model: deps.engine.model.id,
  };
  const chunk = (
    delta: Readonly<Record<string, string>>,
    tokens: readonly PlacedToken[],
    finishReason: string | null,
  ) => ({
    ...head,
    choices: [{
      index: 0,
      delta,
      logprobs: tokens.length > 0 ? logprobsOf(job, tokens) : null,
      finish_reason: finishReason,
    }],
    // A client that asked for usage finds the field in every chunk, filled in the last.
    ...(usageWanted && { usage: null }),
  });
  yield chunk({ role: "assistant", content: "" }, [], null);
  for await (const event of texts) {
    if (event.type === "delta") {
      yield chunk({ content: event.text }, event.tokens, null);
    } else if (event.type === "progress") {
      yield { ...chunk({}, [], null), ...progressOf(event, job.began) };
    } else if (event.type === "end") {
      const promptTokens = request.promptIds.length;
      const { timings, completionTokens } = event;
      yield {
        ...chunk({}, [], event.reason),
        ...(timings && { timings: timingsOf(timings, promptTokens, completionTokens) }),
      };
      if (usageWanted) {
        yield { ...head, choices: [], usage: usageOf(promptTokens, completionTokens) };
      }
    }
  }
}

/** The stop token is no part of the message, so it is not listed. */
function logprobsOf(job: ChatJob, tokens: readonly PlacedToken[]) {
  const { deps, request } = job;
  if (request.logprobs === null) return null;
  const content = tokens.flatMap(({ id, logprob }) =>
    logprob === null || request.stopIds.includes(id) ? [] : [chatLogprob(deps.tokenizer, logprob)]
  );
  return { content, refusal: null };
}
