/**
 * Ollama's API: /api/chat, /api/generate and what their clients ask before. Bodies are translated
 * to those of the chat route and checked there; answers are lines of JSON, times in nanoseconds.
 */
import type { AnswerOptions, CallPiece } from "../chat/answer_stream.ts";
import { callId } from "../chat/tool_calls.ts";
import type { GenerateRequest, ModelInfo } from "../engine/engine.ts";
import { RequestError } from "../errors.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { VERSION } from "../version.ts";
import { type JsonObject, readJsonObject } from "./body.ts";
import { readConversation } from "./conversation.ts";
import { errorBody, type ErrorShape } from "./errors.ts";
import { isObject } from "../json_text.ts";
import { describe } from "./fields.ts";
import { type AppDependencies, checkModel, generateText } from "./generation.ts";
import type { TextEvent } from "./generation.ts";
import { answerWithin, type Lifetime } from "./lifetime.ts";
import { startSource, type StreamFormat, streamResponse } from "./stream.ts";
import { parsedArguments } from "./tools.ts";

const LINES: StreamFormat = {
  contentType: "application/x-ndjson",
  event: (value) => `${JSON.stringify(value)}\n`,
  error: (error) => `${JSON.stringify({ error: errorBody(error).error.message })}\n`,
  end: "",
  // Clients read each line as JSON.
  keepAlive: "",
};

/** What clients add to a name that has no tag. */
const DEFAULT_TAG = ":latest";
const NANOSECONDS_PER_MS = 1_000_000;

/** Errors as Ollama's clients read them. */
export const ollamaError: ErrorShape = ({ message }) => ({ error: message });

/** One request on its way to an answer. */
interface OllamaJob {
  readonly deps: AppDependencies;
  readonly life: Lifetime;
  readonly request: GenerateRequest;
  readonly options: AnswerOptions;
  readonly stream: boolean;
  /** The answer's own fields around a piece of text. */
  readonly around: (text: string) => JsonObject;
}

export function answerOllamaChat(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    const messages = Array.isArray(body.messages) ? body.messages : [];
    const around = (content: string) => ({ message: { role: "assistant", content } });
    if (messages.length === 0) return loaded(deps, body, around(""));
    const translated = { ...translate(body), messages: translateMessages(messages) };
    return await answerJob(deps, life, { ...translated, tools: body.tools }, body, around);
  });
}

export function answerOllamaGenerate(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    refuse(body, ["suffix", "template", "context", "images"]);
    const { prompt, system } = body;
    const around = (response: string) => ({ response });
    if (prompt === undefined || prompt === "") return loaded(deps, body, around(""));
    const messages = [
      ...(system === undefined || system === "" ? [] : [{ role: "system", content: system }]),
      { role: "user", content: prompt },
    ];
    return await answerJob(deps, life, { ...translate(body), messages }, body, around);
  });
}

/** Where a field asks for what Kedge can't do yet, silence would be a wrong answer. */
function refuse(body: JsonObject, fields: readonly string[]): void {
  for (const field of fields) {
    const value = Object.hasOwn(body, field) ? body[field] : null;
    const isNothing = value === null || value === "" ||
      (Array.isArray(value) && value.length === 0);
    if (isNothing) continue;
    throw new RequestError(
      `read field "${field}": wanted no value, found ${describe(value)}`,
      field,
      "unsupported_value",
    );
  }
}

/** Fields and options under the names that the chat route has for them. */
function translate({ model, stream, options, format }: JsonObject): JsonObject {
  if (options !== undefined && options !== null && !isObject(options)) {
    throw new RequestError(
      `read field "options": wanted an object, found ${describe(options)}`,
      "options",
    );
  }
  const own: JsonObject = isObject(options) ? options : {};
  // -1 and -2 ask for all that fits.
  const { num_predict: limit } = own;
  const isBounded = typeof limit !== "number" || limit >= 0;
  return {
    model: typeof model === "string" ? modelName(model) : model,
    stream: stream ?? true,
    temperature: own.temperature,
    top_k: own.top_k,
    top_p: own.top_p,
    min_p: own.min_p,
    typical_p: own.typical_p,
    seed: own.seed,
    stop: own.stop,
    response_format: formOf(format),
    max_tokens: isBounded ? limit : null,
    repeat_penalty: own.repeat_penalty,
    frequency_penalty: own.frequency_penalty,
    presence_penalty: own.presence_penalty,
  };
}

/** "json", or a schema. */
function formOf(format: unknown): unknown {
  if (format === undefined || format === null || format === "") return null;
  if (format === "json") return { type: "json_object" };
  if (isObject(format)) return { type: "json_object", schema: format };
  throw new RequestError(
    `read field "format": wanted "json" or a JSON schema, found ${describe(format)}`,
    "format",
  );
}

/**
 * Ollama's calls have no ids, and its results name the tool: a result answers the first call of
 * that tool that has none yet.
 */
function translateMessages(messages: readonly unknown[]): unknown[] {
  const open: { readonly id: string; readonly name: unknown }[] = [];
  const takeId = (name: unknown) => {
    const at = Math.max(0, open.findIndex((call) => call.name === name));
    return open.splice(at, 1)[0]?.id ?? (typeof name === "string" ? name : "tool");
  };
  let index = 0;
  const translateCall = (call: unknown) => {
    if (!isObject(call) || !isObject(call.function)) return call;
    const { name } = call.function;
    const id = callId(String(name), index++);
    open.push({ id, name });
    return { id, function: call.function };
  };
  return messages.map((message) => {
    if (!isObject(message)) return message;
    refuse(message, ["images"]);
    const { role, content, tool_calls: calls, tool_name: toolName } = message;
    return {
      role,
      content,
      ...(role === "tool" && { tool_call_id: takeId(toolName) }),
      ...(Array.isArray(calls) && { tool_calls: calls.map(translateCall) }),
    };
  });
}

function modelName(name: string): string {
  return name.endsWith(DEFAULT_TAG) ? name.slice(0, -DEFAULT_TAG.length) : name;
}

/** A request without a prompt asks whether the model is loaded. */
function loaded({ engine }: AppDependencies, body: JsonObject, text: JsonObject): Response {
  const { model } = body;
  checkModel(engine, typeof model === "string" ? modelName(model) : null);
  return Response.json({ ...head(engine.model), ...text, done: true, done_reason: "load" });
}

async function answerJob(
  deps: AppDependencies,
  life: Lifetime,
  translated: JsonObject,
  body: JsonObject,
  around: (text: string) => JsonObject,
): Promise<Response> {
  const raw = body.raw === true && typeof body.prompt === "string" ? body.prompt : null;
  const { fields, request, options } = await readConversation(deps, life, translated, raw);
  const stream = fields.stream ?? true;
  const job = { deps, life, request, options, stream, around };
  return stream ? await streamed(job) : await whole(job);
}

async function streamed(job: OllamaJob): Promise<Response> {
  const { deps, life, request, options } = job;
  const texts = generateText(deps, request, options, life.signal);
  const started = await startSource(texts, STREAM_STATUS_WAIT_MS);
  return streamResponse(lines(job, started), texts, life, { format: LINES });
}

async function* lines(job: OllamaJob, texts: AsyncIterable<TextEvent>): AsyncGenerator<JsonObject> {
  const { deps, around } = job;
  const calls = new CallList();
  for await (const event of texts) {
    if (event.type === "delta") {
      if (event.call !== null) calls.add(event.call);
      if (event.text === "") continue;
      yield { ...head(deps.engine.model), ...around(event.text), done: false };
    } else if (event.type === "end") {
      const last = head(deps.engine.model);
      if (calls.length > 0) yield { ...last, ...calls.over(around("")), done: false };
      yield { ...last, ...around(""), ...endOf(job, event) };
    }
  }
}

/** Calls as Ollama's clients read them: whole, their arguments an object. */
class CallList {
  readonly #calls: { readonly name: string; arguments: string }[] = [];

  get length(): number {
    return this.#calls.length;
  }

  add({ index, head, arguments: text }: CallPiece): void {
    if (head === null) this.#calls[index]!.arguments += text;
    else this.#calls.push({ name: head.name, arguments: text });
  }

  /** An answer with the calls in its message. */
  over(answer: JsonObject): JsonObject {
    if (this.#calls.length === 0) return answer;
    const tool_calls = this.#calls.map(({ name, arguments: text }) => ({
      function: { name, arguments: parsedArguments(text) },
    }));
    return { ...answer, message: { ...answer.message as JsonObject, tool_calls } };
  }
}

async function whole(job: OllamaJob): Promise<Response> {
  const { deps, life, request, options, around } = job;
  let text = "";
  const calls = new CallList();
  for await (const event of generateText(deps, request, options, life.signal)) {
    if (event.type === "delta") {
      text += event.text;
      if (event.call !== null) calls.add(event.call);
    } else if (event.type === "end") {
      const answer = calls.over(around(text));
      return Response.json({ ...head(deps.engine.model), ...answer, ...endOf(job, event) });
    }
  }
  throw new Error("answer request: wanted an end of the text, found none");
}

function head({ id }: ModelInfo): JsonObject {
  return { model: id, created_at: new Date().toISOString() };
}

function endOf(
  { life, request }: OllamaJob,
  { reason, completionTokens, timings }: Extract<TextEvent, { type: "end" }>,
): JsonObject {
  const nanoseconds = (milliseconds: number) => Math.round(milliseconds * NANOSECONDS_PER_MS);
  const total = performance.now() - life.began;
  return {
    done: true,
    done_reason: reason,
    total_duration: nanoseconds(total),
    load_duration: 0,
    prompt_eval_count: request.promptIds.length,
    eval_count: completionTokens,
    // Not known of a text that a stop string ended.
    ...(timings && {
      prompt_eval_duration: nanoseconds(timings.prefillMs),
      eval_duration: nanoseconds(timings.decodeMs),
    }),
  };
}

export function showOllamaVersion(): Response {
  return Response.json({ version: VERSION });
}

/** Ollama's account of a model. There is no digest: the folder is served as it lies there. */
function modelEntry({ id, created, weightBytes, parameterCount }: ModelInfo): JsonObject {
  return {
    name: id + DEFAULT_TAG,
    model: id + DEFAULT_TAG,
    modified_at: new Date(created * 1_000).toISOString(),
    size: weightBytes,
    digest: "",
    details: {
      format: "safetensors",
      family: "kimi_linear",
      families: ["kimi_linear"],
      parameter_size: `${(parameterCount / 1e9).toPrecision(3)}B`,
      quantization_level: "",
    },
  };
}

export function listOllamaModels({ engine }: AppDependencies): Response {
  return Response.json({ models: [modelEntry(engine.model)] });
}

/** The model that is served is always loaded. */
export function listOllamaRunning({ engine }: AppDependencies): Response {
  const { model } = engine;
  const entry = { ...modelEntry(model), size_vram: model.device === "cpu" ? 0 : model.deviceBytes };
  return Response.json({ models: [{ ...entry, context_length: model.contextLength }] });
}

export async function showOllamaModel(deps: AppDependencies, http: Request): Promise<Response> {
  const { model } = deps.engine;
  const body = await readJsonObject(http);
  const name = body.model ?? body.name;
  if (typeof name !== "string") {
    throw new RequestError(
      `read field "model": wanted a string, found ${describe(name)}`,
      "model",
    );
  }
  checkModel(deps.engine, modelName(name));
  return Response.json({
    ...modelEntry(model),
    capabilities: ["completion", "tools"],
    model_info: {
      "general.architecture": "kimi_linear",
      "general.parameter_count": model.parameterCount,
      "kimi_linear.context_length": model.contextLength,
    },
    modelfile: "",
    parameters: "",
    template: "",
  });
}
