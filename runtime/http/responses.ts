/** POST /v1/responses: OpenAI's API of items and named events. Nothing is kept after the answer. */
import type { CallPiece } from "../chat/answer_stream.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { type JsonObject, readJsonObject } from "./body.ts";
import { type Conversation, readConversation } from "./conversation.ts";
import { errorBody } from "./errors.ts";
import {
  type AppDependencies,
  generateText,
  responseId,
  type TextEvent,
  unixSeconds,
} from "./generation.ts";
import { answerJson } from "./json_answer.ts";
import { answerWithin, type Lifetime } from "./lifetime.ts";
import { type ChatLogprob, chatLogprobs } from "./logprobs.ts";
import { readResponsesBody, type ResponseFields } from "./responses_schema.ts";
import { type Source, type StartedSource, startSource, valuesOf } from "./sources.ts";
import { namedEvent, type StreamFormat, streamResponse } from "./stream.ts";

type EndEvent = Extract<TextEvent, { type: "end" }>;
type DeltaEvent = Extract<TextEvent, { type: "delta" }>;

/** One request on its way to an answer. */
interface ResponseJob {
  readonly deps: AppDependencies;
  readonly life: Lifetime;
  readonly conversation: Conversation;
  readonly fields: ResponseFields;
  readonly id: string;
  readonly created: number;
}

export function answerResponse(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    const { fields, chatBody } = await readResponsesBody(body, life.slices);
    const conversation = await readConversation(deps, life, chatBody);
    const id = responseId("resp_");
    const job = { deps, life, conversation, fields, id, created: unixSeconds() };
    return fields.stream ? await streamed(job) : await whole(job);
  });
}

function textsOf({ deps, life, conversation: { request, options } }: ResponseJob) {
  return generateText(deps, request, options, life);
}

async function whole(job: ResponseJob): Promise<Response> {
  const items = new ItemWriter(job);
  let end: EndEvent | null = null;
  for await (const event of valuesOf(textsOf(job), job.life)) {
    if (event.type === "delta") drain(items.delta(event));
    else if (event.type === "end") drain(items.end(end = event));
  }
  return await answerJson(responseOf(job, items.output, end), job.life.slices);
}

/** Lets the writer do its work where nobody reads its events. */
function drain(events: Generator<JsonObject>): void {
  while (!events.next().done);
}

async function streamed(job: ResponseJob): Promise<Response> {
  const texts = textsOf(job);
  const started = await startSource(texts, job.life, STREAM_STATUS_WAIT_MS);
  let count = 0;
  const write = (value: JsonObject) => namedEvent({ ...value, sequence_number: count++ });
  const format: StreamFormat = {
    contentType: "text/event-stream; charset=utf-8",
    error: (error) => {
      const body = errorBody(error);
      const { code, message, param } = body.error;
      // OpenAI documents the fields at the top; its clients throw what they find under `error`.
      return write({ type: "error", code, message, param, ...body });
    },
    end: "",
    keepAlive: ": keep-alive\n\n",
  };
  return streamResponse(responseEvents(job, started, write), texts, job.life, { format });
}

function* responseEvents(
  job: ResponseJob,
  texts: StartedSource<TextEvent>,
  write: (value: JsonObject) => string,
): Source<string> {
  const begun = responseOf(job, [], null);
  yield write({ type: "response.created", response: begun });
  yield write({ type: "response.in_progress", response: begun });
  const items = new ItemWriter(job);
  for (const event of texts) {
    if (event === null) {
      yield null;
    } else if (event.type === "delta") {
      for (const value of items.delta(event)) yield write(value);
    } else if (event.type === "end") {
      for (const value of items.end(event)) yield write(value);
      const response = responseOf(job, items.output, event);
      yield write({ type: `response.${response.status}`, response });
    }
  }
}

/** An item of `output`. */
type Item =
  | {
    readonly type: "message";
    readonly id: string;
    readonly role: "assistant";
    readonly status: Status;
    readonly content: readonly TextPart[];
  }
  | {
    readonly type: "function_call";
    readonly id: string;
    readonly call_id: string;
    readonly name: string;
    readonly arguments: string;
    readonly status: Status;
  };

type Status = "in_progress" | "completed" | "incomplete";

interface TextPart {
  readonly type: "output_text";
  readonly text: string;
  readonly annotations: readonly never[];
  readonly logprobs: readonly ChatLogprob[];
}

const textPart = (text: string, logprobs: readonly ChatLogprob[]): TextPart => ({
  type: "output_text",
  text,
  annotations: [],
  logprobs,
});

/** Collects an answer's items and tells them as events, one item open at a time. */
class ItemWriter {
  readonly output: Item[] = [];
  /** The last item while it grows. */
  #open: Item | null = null;
  #text = "";
  #logprobs: ChatLogprob[] = [];

  constructor(private readonly job: ResponseJob) {}

  *delta(event: DeltaEvent): Generator<JsonObject> {
    const { deps, conversation: { request } } = this.job;
    const logprobs = chatLogprobs(deps.tokenizer, request, event.tokens);
    if (event.text !== "") yield* this.#addText(event.text, logprobs);
    if (event.call !== null) yield* this.#addCall(event.call);
  }

  *end({ reason }: EndEvent): Generator<JsonObject> {
    if (this.output.length === 0 && this.#open === null) yield* this.#beginMessage();
    yield* this.#close(reason === "length" ? "incomplete" : "completed");
  }

  *#addText(text: string, logprobs: readonly ChatLogprob[]): Generator<JsonObject> {
    if (this.#open?.type !== "message") yield* this.#beginMessage();
    this.#text += text;
    this.#logprobs.push(...logprobs);
    yield this.#event("response.output_text.delta", { content_index: 0, delta: text, logprobs });
  }

  *#addCall({ head, arguments: more }: CallPiece): Generator<JsonObject> {
    if (head !== null) {
      yield* this.#begin({
        type: "function_call",
        id: responseId("fc_"),
        call_id: head.id,
        name: head.name,
        arguments: "",
        status: "in_progress",
      });
    }
    if (more === "") return;
    this.#text += more;
    yield this.#event("response.function_call_arguments.delta", { delta: more });
  }

  *#beginMessage(): Generator<JsonObject> {
    const id = responseId("msg_");
    yield* this.#begin({
      type: "message",
      id,
      role: "assistant",
      status: "in_progress",
      content: [],
    });
    yield this.#event("response.content_part.added", { content_index: 0, part: textPart("", []) });
  }

  *#begin(item: Item): Generator<JsonObject> {
    yield* this.#close("completed");
    this.#open = item;
    this.#text = "";
    this.#logprobs = [];
    yield { type: "response.output_item.added", output_index: this.output.length, item };
  }

  *#close(status: Status): Generator<JsonObject> {
    const open = this.#open;
    if (open === null) return;
    const text = this.#text;
    let item: Item;
    if (open.type === "message") {
      const part = textPart(text, this.#logprobs);
      const at = { content_index: 0 };
      yield this.#event("response.output_text.done", { ...at, text, logprobs: part.logprobs });
      yield this.#event("response.content_part.done", { ...at, part });
      item = { ...open, status, content: [part] };
    } else {
      const { name } = open;
      yield this.#event("response.function_call_arguments.done", { name, arguments: text });
      item = { ...open, status, arguments: text };
    }
    yield { type: "response.output_item.done", output_index: this.output.length, item };
    this.output.push(item);
    this.#open = null;
  }

  #event(type: string, fields: JsonObject): JsonObject {
    return { type, item_id: this.#open!.id, output_index: this.output.length, ...fields };
  }
}

/** The response around its items; `end`: null before it. */
function responseOf(job: ResponseJob, output: readonly Item[], end: EndEvent | null) {
  const { deps, fields, conversation: { request }, id, created } = job;
  const isCut = end?.reason === "length";
  const inputTokens = request.promptIds.length;
  return {
    id,
    object: "response",
    created_at: created,
    status: end === null ? "in_progress" : isCut ? "incomplete" : "completed",
    completed_at: end === null || isCut ? null : unixSeconds(),
    error: null,
    incomplete_details: isCut ? { reason: "max_output_tokens" } : null,
    instructions: fields.instructions ?? null,
    max_output_tokens: fields.max_output_tokens ?? null,
    metadata: fields.metadata ?? {},
    model: deps.engine.model.id,
    output,
    parallel_tool_calls: fields.parallel_tool_calls ?? true,
    previous_response_id: null,
    store: false,
    temperature: request.sampling.temperature,
    text: { format: fields.text?.format ?? { type: "text" } },
    tool_choice: fields.tool_choice ?? "auto",
    tools: fields.tools,
    top_p: request.sampling.topP,
    truncation: "disabled",
    usage: end === null ? null : {
      input_tokens: inputTokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: end.completionTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: inputTokens + end.completionTokens,
    },
  };
}
