/** What the API's document says of each route, beside the schemas. */
import type { JsonObject } from "./body.ts";
import type { AnswerName, BodyName } from "./components.ts";

export interface Operation {
  readonly method: "get" | "post";
  /** As the document has it, with parameters in braces. */
  readonly path: string;
  readonly tag: "OpenAI" | "Anthropic" | "Ollama" | "Tokens" | "Server";
  readonly summary: string;
  readonly body?: BodyName;
  readonly example?: JsonObject;
  /** The answer with status 200: a schema's name, or a content type; null: there is none. */
  readonly answer: AnswerName | `${string}/${string}` | null;
  /** What the answer is made of where the body asks for a stream. */
  readonly stream?: {
    readonly type: string;
    readonly item: AnswerName;
    /** The data of the last event, which is no JSON. */
    readonly end?: string;
  };
  /** Statuses of errors beside those of all routes. */
  readonly errors: readonly number[];
  /** The answer with status 503 where it is no error object. */
  readonly unready?: AnswerName;
}

/** Of every route: key, scope or origin, URL, headers, a mistake of the server's. */
export const COMMON_ERRORS = [401, 403, 414, 431, 500];
/** Of a body: its fields, the model that it names, its time, size and encoding. */
const BODY_ERRORS = [400, 404, 408, 413, 415];
/** Of whatever takes a place in the queue. */
const QUEUE_ERRORS = [...BODY_ERRORS, 429, 503];

export const ERROR_WORDS: Readonly<Record<number, string>> = {
  400: "A field or the body is wrong",
  401: "No known API key",
  403: "The key, the host or the origin may not do this",
  404: "Another model than the one served",
  408: "The body came late, or the answer took longer than --request-timeout",
  413: "The body is too large",
  414: "The URL is too long",
  415: "The body has a content-encoding",
  429: "The key has its fill of requests under way",
  431: "The headers are too large",
  500: "The server failed",
  501: "No model here can do it",
  503: "The queue is full, or the engine restarts or drains",
};

const EVENTS = "text/event-stream";
const DONE = "[DONE]";
export const LINES = "application/x-ndjson";
const messages = [{ role: "user", content: "Tell me a story about a fox." }];

export const OPERATIONS: readonly Operation[] = [
  {
    method: "post",
    path: "/v1/chat/completions",
    tag: "OpenAI",
    summary: "Answer a conversation, whole or as a stream",
    body: "ChatRequest",
    example: { messages, max_tokens: 20 },
    answer: "ChatCompletion",
    stream: { type: EVENTS, item: "ChatCompletionEvent", end: DONE },
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/v1/completions",
    tag: "OpenAI",
    summary: "Go on with texts or token ids; with echo and logprobs, score them",
    body: "CompletionRequest",
    example: { prompt: "Once upon a time", max_tokens: 20 },
    answer: "Completion",
    stream: { type: EVENTS, item: "CompletionEvent", end: DONE },
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/v1/responses",
    tag: "OpenAI",
    summary: "OpenAI's newer API, whole or as named events; nothing is kept",
    body: "ResponsesRequest",
    example: { input: "Tell me a joke", max_output_tokens: 20 },
    answer: "Response",
    stream: { type: EVENTS, item: "ResponseEvent" },
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/v1/embeddings",
    tag: "OpenAI",
    summary: "Refused: a model that writes makes no embeddings to compare texts by",
    answer: null,
    errors: [501],
  },
  {
    method: "get",
    path: "/v1/models",
    tag: "OpenAI",
    summary: "The model that is served, as a list",
    answer: "Models",
    errors: [],
  },
  {
    method: "get",
    path: "/v1/models/{id}",
    tag: "OpenAI",
    summary: "The model that is served",
    answer: "Model",
    errors: [404],
  },
  {
    method: "post",
    path: "/v1/messages",
    tag: "Anthropic",
    summary: "Answer a conversation, whole or as named events",
    body: "MessagesRequest",
    example: { max_tokens: 20, messages },
    answer: "Message",
    stream: { type: EVENTS, item: "MessageEvent" },
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/v1/messages/count_tokens",
    tag: "Anthropic",
    summary: "How many tokens a conversation's prompt has",
    body: "CountTokensRequest",
    example: { messages },
    answer: "CountTokens",
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/api/chat",
    tag: "Ollama",
    summary: "Answer a conversation, in lines of JSON unless stream is false",
    body: "OllamaChatRequest",
    example: { messages, options: { num_predict: 20 } },
    answer: "OllamaChat",
    stream: { type: LINES, item: "OllamaChatLine" },
    errors: QUEUE_ERRORS,
  },
  {
    method: "post",
    path: "/api/generate",
    tag: "Ollama",
    summary: "Answer a text, in lines of JSON unless stream is false",
    body: "OllamaGenerateRequest",
    example: { prompt: "Tell me a joke", options: { num_predict: 20 } },
    answer: "OllamaGenerate",
    stream: { type: LINES, item: "OllamaGenerateLine" },
    errors: QUEUE_ERRORS,
  },
  {
    method: "get",
    path: "/api/tags",
    tag: "Ollama",
    summary: "The model that is served",
    answer: "OllamaTags",
    errors: [],
  },
  {
    method: "get",
    path: "/api/ps",
    tag: "Ollama",
    summary: "The model that is loaded, which is the one served",
    answer: "OllamaPs",
    errors: [],
  },
  {
    method: "post",
    path: "/api/show",
    tag: "Ollama",
    summary: "What is known of the model",
    body: "OllamaShowRequest",
    example: { model: "kedge-tiny" },
    answer: "OllamaShow",
    errors: BODY_ERRORS,
  },
  {
    method: "get",
    path: "/api/version",
    tag: "Ollama",
    summary: "Kedge's version",
    answer: "OllamaVersion",
    errors: [],
  },
  {
    method: "post",
    path: "/tokenize",
    tag: "Tokens",
    summary: "Text or messages to token ids, in vLLM's and llama-server's spelling",
    body: "TokenizeRequest",
    example: { prompt: "Hello" },
    answer: "Tokenize",
    errors: BODY_ERRORS,
  },
  {
    method: "post",
    path: "/detokenize",
    tag: "Tokens",
    summary: "Token ids to text",
    body: "DetokenizeRequest",
    example: { tokens: [72, 101] },
    answer: "Detokenize",
    errors: BODY_ERRORS,
  },
  {
    method: "post",
    path: "/apply-template",
    tag: "Tokens",
    summary: "The prompt that a conversation becomes",
    body: "TemplateRequest",
    example: { messages },
    answer: "Template",
    errors: BODY_ERRORS,
  },
  {
    method: "get",
    path: "/",
    tag: "Server",
    summary: "What is served, in a sentence",
    answer: "text/plain",
    errors: [],
  },
  {
    method: "get",
    path: "/props",
    tag: "Server",
    summary: "Defaults, slots and device, as llama-server tells them",
    answer: "Props",
    errors: [],
  },
  {
    method: "get",
    path: "/health",
    tag: "Server",
    summary: "Whether requests can run, as llama-server says it; needs no key",
    answer: "Health",
    errors: [503],
    unready: "Unhealthy",
  },
  {
    method: "get",
    path: "/livez",
    tag: "Server",
    summary: "503 when only a new process helps; needs no key",
    answer: "State",
    errors: [503],
    unready: "State",
  },
  {
    method: "get",
    path: "/readyz",
    tag: "Server",
    summary: "503 while requests had better go elsewhere; needs no key",
    answer: "State",
    errors: [503],
    unready: "State",
  },
  {
    method: "get",
    path: "/metrics",
    tag: "Server",
    summary: "For Prometheus; ?experts=1 adds the tokens that each expert got",
    answer: "text/plain",
    errors: [],
  },
  {
    method: "get",
    path: "/openapi.json",
    tag: "Server",
    summary: "This document",
    answer: "application/json",
    errors: [],
  },
  {
    method: "get",
    path: "/docs",
    tag: "Server",
    summary: "This document as a page that loads nothing else",
    answer: "text/html",
    errors: [],
  },
];
