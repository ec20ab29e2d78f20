/** Anthropic's API: POST /v1/messages and /v1/messages/count_tokens. */
import type { CallPiece } from "../chat/answer_stream.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { type JsonObject, readJsonObject } from "./body.ts";
import { type Conversation, encodeConversation, readConversation } from "./conversation.ts";
import { errorBody, type ErrorShape } from "./errors.ts";
import { type AppDependencies, generateText, responseId, type TextEvent } from "./generation.ts";
import { answerJson } from "./json_answer.ts";
import { answerWithin, type Lifetime } from "./lifetime.ts";
import { toChatBody } from "./messages_schema.ts";
import { type Source, type StartedSource, startSource, valuesOf } from "./sources.ts";
import { namedEvent, type StreamFormat, streamResponse } from "./stream.ts";
import { parsedArguments } from "./tools.ts";

type EndEvent = Extract<TextEvent, { type: "end" }>;

/** Anthropic's names of what their clients tell apart. */
const ERROR_TYPES: ReadonlyMap<number, string> = new Map([
  [401, "authentication_error"],
  [403, "permission_error"],
  [404, "not_found_error"],
  [413, "request_too_large"],
  [429, "rate_limit_error"],
  [503, "overloaded_error"],
]);

/** Errors as Anthropic's clients read them. */
export const messagesError: ErrorShape = ({ message, code }, status) => {
  const type = ERROR_TYPES.get(status) ?? (status < 500 ? "invalid_request_error" : "api_error");
  // Agents look for these words to know when they have to shorten the conversation.
  const text = code === "context_length_exceeded" ? `prompt is too long: ${message}` : message;
  return { type: "error", error: { type, message: text } };
};

const EVENTS: StreamFormat = {
  contentType: "text/event-stream; charset=utf-8",
  error: (error) => namedEvent(messagesError(errorBody(error).error, 500) as JsonObject),
  end: "",
  keepAlive: namedEvent({ type: "ping" }),
};

/** One request on its way to an answer. */
interface MessagesJob extends Conversation {
  readonly deps: AppDependencies;
  readonly life: Lifetime;
  readonly id: string;
}

type ContentBlock =
  | { readonly type: "text"; text: string }
  | {
    readonly type: "tool_use";
    readonly id: string;
    readonly name: string;
    readonly input: JsonObject;
  };

export function answerMessages(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    const chatBody = await toChatBody(body, false, life.slices);
    const conversation = await readConversation(deps, life, chatBody);
    const job = { ...conversation, deps, life, id: responseId("msg_") };
    return job.fields.stream ? await streamed(job) : await whole(job);
  });
}

export function countMessageTokens(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    const chatBody = await toChatBody(body, true, life.slices);
    const { promptIds } = await encodeConversation(deps, life, chatBody);
    return Response.json({ input_tokens: promptIds.length });
  });
}

async function whole(job: MessagesJob): Promise<Response> {
  const { deps, request, options, life } = job;
  let text = "";
  const calls: { readonly id: string; readonly name: string; input: string }[] = [];
  let end: EndEvent | null = null;
  for await (const event of valuesOf(generateText(deps, request, options, life), life)) {
    if (event.type === "end") end = event;
    if (event.type !== "delta") continue;
    text += event.text;
    if (event.call === null) continue;
    const { index, head, arguments: more } = event.call;
    if (head === null) calls[index]!.input += more;
    else calls.push({ ...head, input: more });
  }
  const content: ContentBlock[] = text === "" ? [] : [{ type: "text", text }];
  for (const { id, name, input } of calls) {
    content.push({ type: "tool_use", id, name, input: parsedArguments(input) });
  }
  return await answerJson({ ...messageOf(job, end!), content }, life.slices);
}

async function streamed(job: MessagesJob): Promise<Response> {
  const { deps, request, options, life } = job;
  const texts = generateText(deps, request, options, life);
  const started = await startSource(texts, life, STREAM_STATUS_WAIT_MS);
  return streamResponse(messageEvents(job, started), texts, life, { format: EVENTS });
}

function* messageEvents(job: MessagesJob, texts: StartedSource<TextEvent>): Source<string> {
  yield namedEvent({ type: "message_start", message: { ...messageOf(job, null), content: [] } });
  const blocks = new BlockWriter();
  for (const event of texts) {
    if (event === null) {
      yield null;
    } else if (event.type === "delta") {
      if (event.text !== "") {
        for (const value of blocks.text(event.text)) yield namedEvent(value);
      }
      if (event.call !== null) {
        for (const value of blocks.call(event.call)) yield namedEvent(value);
      }
    } else if (event.type === "end") {
      for (const value of blocks.end()) yield namedEvent(value);
      const { stop_reason, stop_sequence, usage } = messageOf(job, event);
      yield namedEvent({ type: "message_delta", delta: { stop_reason, stop_sequence }, usage });
      yield namedEvent({ type: "message_stop" });
    }
  }
}

/** Content blocks as events, one open at a time. */
class BlockWriter {
  #index = -1;
  /** The open block: a text, or the call of this index. */
  #open: "text" | number | null = null;

  *text(text: string): Generator<JsonObject> {
    if (this.#open !== "text") yield* this.#begin("text", { type: "text", text: "" });
    yield this.#delta({ type: "text_delta", text });
  }

  *call({ index, head, arguments: more }: CallPiece): Generator<JsonObject> {
    if (head !== null) yield* this.#begin(index, { type: "tool_use", ...head, input: {} });
    if (more !== "") yield this.#delta({ type: "input_json_delta", partial_json: more });
  }

  *end(): Generator<JsonObject> {
    if (this.#open !== null) yield { type: "content_block_stop", index: this.#index };
    this.#open = null;
  }

  *#begin(kind: "text" | number, content_block: JsonObject): Generator<JsonObject> {
    yield* this.end();
    this.#open = kind;
    yield { type: "content_block_start", index: ++this.#index, content_block };
  }

  #delta(delta: JsonObject): JsonObject {
    return { type: "content_block_delta", index: this.#index, delta };
  }
}

/** The message around its content; `end`: null at its beginning. */
function messageOf({ deps, request, id }: MessagesJob, end: EndEvent | null) {
  return {
    id,
    type: "message",
    role: "assistant",
    model: deps.engine.model.id,
    stop_reason: end === null ? null : stopReason(end),
    stop_sequence: end?.stopped ?? null,
    usage: {
      input_tokens: request.promptIds.length,
      output_tokens: end?.completionTokens ?? 0,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
    },
  };
}

function stopReason({ reason, stopped, calls }: EndEvent): string {
  if (reason === "length") return "max_tokens";
  if (stopped !== null) return "stop_sequence";
  return calls > 0 ? "tool_use" : "end_turn";
}
