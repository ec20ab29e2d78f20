/**
 * Ollama's API: /api/chat, /api/generate and what their clients ask before. Answers are lines of
 * JSON, times in nanoseconds.
 */
import type { AnswerOptions, CallPiece } from "../chat/answer_stream.ts";
import type { GenerateRequest, ModelInfo } from "../engine/engine.ts";
import { STREAM_STATUS_WAIT_MS } from "../limits.ts";
import { VERSION } from "../version.ts";
import { type JsonObject, readJsonObject } from "./body.ts";
import { readConversation } from "./conversation.ts";
import { errorBody, type ErrorShape } from "./errors.ts";
import { type AppDependencies, checkModel, generateText } from "./generation.ts";
import type { TextEvent } from "./generation.ts";
import { answerWithin, type Lifetime } from "./lifetime.ts";
import {
  DEFAULT_TAG,
  type OllamaRequest,
  readOllamaChat,
  readOllamaGenerate,
  readOllamaShow,
} from "./ollama_schema.ts";
import { type Source, type StartedSource, startSource, valuesOf } from "./sources.ts";
import { type StreamFormat, streamResponse } from "./stream.ts";
import { parsedArguments } from "./tools.ts";

const LINES: StreamFormat = {
  contentType: "application/x-ndjson",
  error: (error) => line({ error: errorBody(error).error.message }),
  end: "",
  // Clients read each line as JSON.
  keepAlive: "",
};

function line(value: JsonObject): string {
  return `${JSON.stringify(value)}\n`;
}

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
    const around = (content: string) => ({ message: { role: "assistant", content } });
    return await answerRequest(deps, life, await readOllamaChat(body, life.slices), around);
  });
}

export function answerOllamaGenerate(deps: AppDependencies, http: Request): Promise<Response> {
  return answerWithin(deps, http, async (life) => {
    const body = await readJsonObject(http, life.bodyReadMs, life.slices);
    const around = (response: string) => ({ response });
    return await answerRequest(deps, life, readOllamaGenerate(body), around);
  });
}

async function answerRequest(
  deps: AppDependencies,
  life: Lifetime,
  { model, chatBody, rawPrompt }: OllamaRequest,
  around: (text: string) => JsonObject,
): Promise<Response> {
  if (chatBody === null) return loaded(deps, model, around(""));
  const { fields, request, options } = await readConversation(deps, life, chatBody, rawPrompt);
  const stream = fields.stream ?? true;
  const job = { deps, life, request, options, stream, around };
  return stream ? await streamed(job) : await whole(job);
}

/** A request without a prompt asks whether the model is loaded. */
function loaded({ engine }: AppDependencies, name: string | null, text: JsonObject): Response {
  checkModel(engine, name);
  return Response.json({ ...head(engine.model), ...text, done: true, done_reason: "load" });
}

async function streamed(job: OllamaJob): Promise<Response> {
  const { deps, life, request, options } = job;
  const texts = generateText(deps, request, options, life);
  const started = await startSource(texts, life, STREAM_STATUS_WAIT_MS);
  return streamResponse(lines(job, started), texts, life, { format: LINES });
}

function* lines(job: OllamaJob, texts: StartedSource<TextEvent>): Source<string> {
  const { deps, around } = job;
  const calls = new CallList();
  for (const event of texts) {
    if (event === null) {
      yield null;
    } else if (event.type === "delta") {
      if (event.call !== null) calls.add(event.call);
      if (event.text === "") continue;
      yield line({ ...head(deps.engine.model), ...around(event.text), done: false });
    } else if (event.type === "end") {
      const last = head(deps.engine.model);
      if (calls.length > 0) yield line({ ...last, ...calls.over(around("")), done: false });
      yield line({ ...last, ...around(""), ...endOf(job, event) });
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
  for await (const event of valuesOf(generateText(deps, request, options, life), life)) {
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
  checkModel(deps.engine, readOllamaShow(await readJsonObject(http)));
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
