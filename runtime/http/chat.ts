/** POST /v1/chat/completions */
import type { AnswerOptions, CallPiece } from "../chat/answer_stream.ts";
import type { GenerateRequest } from "../engine/engine.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { readJsonObject } from "./body.ts";
import { readConversation } from "./conversation.ts";
import {
  type AppDependencies,
  choicesOf,
  generateText,
  type PlacedToken,
  progressOf,
  responseId,
  type TextEvent,
  timingsOf,
  unixSeconds,
  usageOf,
} from "./generation.ts";
import { answerJson } from "./json_answer.ts";
import { answerWithin, type Lifetime } from "./lifetime.ts";
import { type ChatLogprob, chatLogprobs } from "./logprobs.ts";
import type { ChatRequest } from "./schema.ts";
import { mergeSources, type Source, type StartedSource, startSource, valuesOf } from "./sources.ts";
import { aroundHoles, HOLE, serverSentEvent, streamResponse } from "./stream.ts";

/** One request on its way to an answer. */
interface ChatJob {
  readonly deps: AppDependencies;
  readonly life: Lifetime;
  readonly fields: ChatRequest;
  readonly options: AnswerOptions;
  /** One a choice. */
  readonly requests: readonly GenerateRequest[];
  readonly promptTokens: number;
  readonly id: string;
  readonly created: number;
}

type EndEvent = Extract<TextEvent, { type: "end" }>;

export function answerChat(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const job = await readJob(deps, http, life);
    return job.fields.stream ? await streamed(job) : await whole(job);
  });
}

async function readJob(deps: AppDependencies, http: Request, life: Lifetime): Promise<ChatJob> {
  const body = await readJsonObject(http, life.bodyReadMs, life.slices);
  const { fields, request, options } = await readConversation(deps, life, body);
  return {
    deps,
    life,
    fields,
    options,
    requests: choicesOf(request, fields.n ?? 1),
    promptTokens: request.promptIds.length,
    id: responseId("chatcmpl-"),
    created: unixSeconds(),
  };
}

/** A call of the answer as OpenAI's API has it. */
interface ChatToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; arguments: string };
}

interface ChatMessage {
  readonly role: "assistant";
  content: string | null;
  readonly refusal: null;
  tool_calls?: ChatToolCall[];
}

async function whole(job: ChatJob): Promise<Response> {
  const wantsLogprobs = job.fields.logprobs === true;
  const choices = job.requests.map((_, index) => ({
    index,
    message: { role: "assistant", content: "", refusal: null } as ChatMessage,
    logprobs: wantsLogprobs ? { content: [] as ChatLogprob[], refusal: null } : null,
    finish_reason: null as string | null,
  }));
  const ends: EndEvent[] = [];
  for await (const event of valuesOf(allChoices(job), job.life)) {
    const choice = choices[event.choice]!;
    if (event.type === "delta") {
      choice.message.content += event.text;
      if (event.call !== null) addPiece(choice.message, event.call);
      choice.logprobs?.content.push(...logprobsOf(job, event.tokens));
    } else if (event.type === "end") {
      choice.finish_reason = reasonOf(event);
      // As OpenAI answers a call without a word.
      if (event.calls > 0) choice.message.content ||= null;
      ends.push(event);
    }
  }
  const head = headOf(job, "chat.completion");
  return await answerJson({ ...head, choices, ...countsOf(job, ends) }, job.life.slices);
}

function headOf({ deps, requests, id, created }: ChatJob, object: string) {
  return { id, object, created, model: deps.engine.model.id, seed: requests[0]!.sampling.seed };
}

function addPiece(message: ChatMessage, { index, head, arguments: text }: CallPiece): void {
  const calls = message.tool_calls ??= [];
  if (head === null) calls[index]!.function.arguments += text;
  else calls.push(callOf(head, text));
}

function callOf({ id, name }: NonNullable<CallPiece["head"]>, text: string): ChatToolCall {
  return { id, type: "function", function: { name, arguments: text } };
}

/** Calls that were cut short by the limit are no calls to carry out. */
function reasonOf({ reason, calls }: EndEvent): string {
  return reason === "stop" && calls > 0 ? "tool_calls" : reason;
}

async function streamed(job: ChatJob): Promise<Response> {
  const choices = allChoices(job);
  const started = await startSource(choices, job.life, STREAM_STATUS_WAIT_MS);
  return streamResponse(chatChunks(job, started), choices, job.life);
}

/** The events of all choices as they come; as many run at a time as there are slots. */
function allChoices({ deps, life, options, requests }: ChatJob): Source<TextEvent> {
  const starts = requests.map((request, choice) => () =>
    generateText(deps, request, options, life, choice)
  );
  return starts.length === 1 ? starts[0]!() : mergeSources(starts, deps.engine.model.slots);
}

/** The chunks as events. */
function* chatChunks(job: ChatJob, events: StartedSource<TextEvent>): Source<string> {
  const { fields, requests } = job;
  const usageWanted = fields.stream_options?.include_usage === true;
  const head = headOf(job, "chat.completion.chunk");
  const chunk = (
    index: number,
    delta: Readonly<Record<string, unknown>>,
    tokens: readonly PlacedToken[],
    finishReason: string | null,
  ) => ({
    ...head,
    choices: [{
      index,
      delta,
      logprobs: tokens.length > 0 && fields.logprobs === true
        ? { content: logprobsOf(job, tokens), refusal: null }
        : null,
      finish_reason: finishReason,
    }],
    // A client that asked for usage finds the field in every chunk, filled in the last.
    ...(usageWanted && { usage: null }),
  });
  // Most chunks differ by their text alone.
  const aroundText = requests.map((_, index) =>
    aroundHoles(serverSentEvent(chunk(index, { content: HOLE }, [], null)))
  );
  for (const index of requests.keys()) {
    yield serverSentEvent(chunk(index, { role: "assistant", content: "" }, [], null));
  }
  const ends: EndEvent[] = [];
  for (const event of events) {
    if (event === null) {
      yield null;
    } else if (event.type === "delta") {
      const around = aroundText[event.choice]!;
      yield event.call === null && fields.logprobs !== true
        ? around[0] + JSON.stringify(event.text) + around[1]
        : serverSentEvent(chunk(event.choice, deltaOf(event), event.tokens, null));
    } else if (event.type === "progress") {
      const progress = progressOf(event, job.life.began);
      yield serverSentEvent({ ...chunk(event.choice, {}, [], null), ...progress });
    } else if (event.type === "end") {
      ends.push(event);
      const { timings } = countsOf(job, ends);
      const last = chunk(event.choice, {}, [], reasonOf(event));
      yield serverSentEvent({ ...last, ...(timings && { timings }) });
    }
  }
  if (usageWanted) {
    yield serverSentEvent({ ...head, choices: [], usage: countsOf(job, ends).usage });
  }
}

function deltaOf({ text, call }: Extract<TextEvent, { type: "delta" }>) {
  if (call === null) return { content: text };
  const { index, head, arguments: more } = call;
  const part = head === null ? { function: { arguments: more } } : callOf(head, more);
  return { ...(text !== "" && { content: text }), tool_calls: [{ index, ...part }] };
}

/** `usage` over all choices; `timings` only of a single one, where the phases are not shared. */
function countsOf({ requests, promptTokens }: ChatJob, ends: readonly EndEvent[]) {
  const completionTokens = ends.reduce((sum, end) => sum + end.completionTokens, 0);
  const timings = requests.length === 1 ? ends[0]?.timings : null;
  return {
    usage: usageOf(promptTokens, completionTokens),
    ...(timings && { timings: timingsOf(timings, promptTokens, completionTokens) }),
  };
}

function logprobsOf({ deps, requests }: ChatJob, tokens: readonly PlacedToken[]): ChatLogprob[] {
  return chatLogprobs(deps.tokenizer, requests[0]!, tokens);
}
