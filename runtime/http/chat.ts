/** POST /v1/chat/completions */
import { encodeSegments } from "../chat/encode.ts";
import { renderChatInSlices } from "../chat/template.ts";
import type { GenerateRequest } from "../engine/engine.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { readJsonObject } from "./body.ts";
import {
  type AppDependencies,
  checkModel,
  generateText,
  type PlacedToken,
  planGeneration,
  progressOf,
  responseId,
  type TextEvent,
  timingsOf,
  unixSeconds,
  usageOf,
} from "./generation.ts";
import { answerJson } from "./json_answer.ts";
import { answerWithin, estimateTokens, type Lifetime } from "./lifetime.ts";
import { type ChatLogprob, chatLogprob } from "./logprobs.ts";
import { type ChatRequest, parseChatRequest } from "./schema.ts";
import { startSource, streamResponse } from "./stream.ts";

/** One request on its way to an answer. */
interface ChatJob {
  readonly deps: AppDependencies;
  readonly life: Lifetime;
  readonly fields: ChatRequest;
  readonly request: GenerateRequest;
  readonly id: string;
  readonly created: number;
}

export function answerChat(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const job = await readJob(deps, http, life);
    return job.fields.stream ? await streamed(job) : await whole(job);
  });
}

async function readJob(deps: AppDependencies, http: Request, life: Lifetime): Promise<ChatJob> {
  const { engine, tokenizer } = deps;
  const { slices } = life;
  const body = await readJsonObject(http, life.bodyReadMs, slices);
  const fields = await parseChatRequest(body, engine.model.vocabularySize, slices);
  checkModel(engine, fields.model);
  const segments = await renderChatInSlices(fields.messages, fields.tools, true, slices);
  life.hold([estimateTokens(segments.reduce((sum, { text }) => sum + text.length, 0))]);
  const promptIds = await encodeSegments(tokenizer, segments, slices);
  const wantedTokens = fields.max_completion_tokens ?? fields.max_tokens ?? null;
  return {
    deps,
    life,
    fields,
    request: {
      ...planGeneration(deps, fields, promptIds, "messages", wantedTokens, life.owner),
      logprobs: fields.logprobs ? fields.top_logprobs ?? 0 : null,
    },
    id: responseId("chatcmpl-"),
    created: unixSeconds(),
  };
}

async function whole(job: ChatJob): Promise<Response> {
  const { deps, fields, life, request } = job;
  let content = "";
  const logprobs: ChatLogprob[] = [];
  let end: Extract<TextEvent, { type: "end" }> | null = null;
  for await (const event of generateText(deps, request, fields.stop, life.signal)) {
    if (event.type === "delta") {
      content += event.text;
      logprobs.push(...logprobsOf(job, event.tokens));
    } else if (event.type === "end") {
      end = event;
    }
  }
  const promptTokens = request.promptIds.length;
  const { reason, timings, completionTokens } = end!;
  return await answerJson({
    id: job.id,
    object: "chat.completion",
    created: job.created,
    model: deps.engine.model.id,
    choices: [{
      index: 0,
      message: { role: "assistant", content, refusal: null },
      logprobs: request.logprobs === null ? null : { content: logprobs, refusal: null },
      finish_reason: reason,
    }],
    usage: usageOf(promptTokens, completionTokens),
    ...(timings && { timings: timingsOf(timings, promptTokens, completionTokens) }),
  }, life.slices);
}

async function streamed(job: ChatJob): Promise<Response> {
  const { life } = job;
  const texts = generateText(job.deps, job.request, job.fields.stop, life.signal);
  const started = await startSource(texts, STREAM_STATUS_WAIT_MS);
  return streamResponse(chatChunks(job, started), texts, life);
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
      logprobs: tokens.length > 0 && request.logprobs !== null
        ? { content: logprobsOf(job, tokens), refusal: null }
        : null,
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
      yield { ...chunk({}, [], null), ...progressOf(event, job.life.began) };
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
function logprobsOf(job: ChatJob, tokens: readonly PlacedToken[]): ChatLogprob[] {
  const { deps, request } = job;
  return tokens.flatMap(({ id, logprob }) =>
    logprob === null || request.stopIds.includes(id) ? [] : [chatLogprob(deps.tokenizer, logprob)]
  );
}
