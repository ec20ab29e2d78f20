/** Bodies of Ollama's API, checked, and as the chat route has them. */
import { z } from "zod";
import { callId } from "../chat/tool_calls.ts";
import { RequestError } from "../errors.ts";
import * as limits from "../limits.ts";
import type { Slices } from "../slices.ts";
import type { JsonObject } from "./body.ts";
import {
  anyObject,
  anyText,
  flag,
  integerFrom,
  listFrom,
  nameText,
  optional,
  parseFields,
  parseList,
  textFrom,
  wanted,
  wholeList,
} from "./fields.ts";
import { generationFields } from "./generation_fields.ts";
import { only, refusedFields, refuseFields } from "./refused_fields.ts";
import { conversationShape } from "./schema.ts";

/** What clients add to a name that has no tag. */
export const DEFAULT_TAG = ":latest";

const REFUSED_IN_MESSAGE = [only("images", [])];
const REFUSED_IN_GENERATE = [
  only("suffix", ""),
  only("template", ""),
  only("context", []),
  only("images", []),
];

const options = z.object({
  temperature: generationFields.temperature,
  top_k: generationFields.top_k,
  top_p: generationFields.top_p,
  min_p: generationFields.min_p,
  typical_p: generationFields.typical_p,
  seed: generationFields.seed,
  stop: generationFields.stop,
  num_predict: optional(integerFrom(-2, limits.MAX_COMPLETION_TOKENS))
    .describe("As max_tokens; -1 and -2 ask for all that fits"),
  repeat_penalty: generationFields.repeat_penalty,
  frequency_penalty: generationFields.frequency_penalty,
  presence_penalty: generationFields.presence_penalty,
}, wanted("an object"));

const sharedFields = {
  model: optional(anyText).describe(`The name in /api/tags, with or without ${DEFAULT_TAG}`),
  stream: optional(flag).describe("true unless given"),
  options: optional(options),
  format: optional(
    z.union([z.literal(["", "json"]), anyObject], wanted('"json" or a JSON schema')),
  ),
};

const call = z.object({
  function: z.object({
    name: nameText,
    arguments: z.union([anyObject, anyText], wanted("an object")),
  }, wanted("an object")),
}, wanted("an object"));

const ROLES = ["system", "user", "assistant", "tool"] as const;

const message = z.object({
  role: z.enum(ROLES, wanted(`one of ${ROLES.join(", ")}`)),
  content: optional(anyText),
  tool_calls: optional(listFrom(call, 0, limits.MAX_PARTS)),
  tool_name: optional(textFrom(0, limits.MAX_NAME_CHARACTERS))
    .describe("Whose result a tool's message is"),
  ...refusedFields(REFUSED_IN_MESSAGE),
}, wanted("an object"));

type Message = z.output<typeof message>;

const messagesField = { field: "messages", item: message, least: 0, most: limits.MAX_MESSAGES };

const chatSchema = z.object(sharedFields);

const generateSchema = z.object({
  ...sharedFields,
  prompt: optional(anyText).describe("Without one the answer says that the model is loaded"),
  system: optional(anyText),
  raw: optional(flag).describe("The prompt is gone on with as it stands, without a layout"),
});

/** The whole bodies, for the API's document. */
export const ollamaChatBody = z.object({
  ...chatSchema.shape,
  messages: optional(wholeList(messagesField)),
  tools: conversationShape.tools,
});
export const ollamaGenerateBody = z.object({
  ...generateSchema.shape,
  ...refusedFields(REFUSED_IN_GENERATE),
});
export const ollamaShowBody = z.object({
  model: optional(anyText),
  name: optional(anyText).describe("An older name of model"),
});

/** A request as the chat route has it. */
export interface OllamaRequest {
  readonly model: string | null;
  /** null: nothing is to be written, only to be said that the model is loaded. */
  readonly chatBody: JsonObject | null;
  /** A text to go on with in place of the conversation. */
  readonly rawPrompt: string | null;
}

export async function readOllamaChat(body: JsonObject, slices: Slices): Promise<OllamaRequest> {
  const fields = parseFields(chatSchema, body);
  const messages = await parseList<Message>(messagesField, body, slices) ?? [];
  const model = modelName(fields.model);
  if (messages.length === 0) return { model, chatBody: null, rawPrompt: null };
  const turns = translateMessages(messages);
  const chatBody = { ...translate(fields), messages: turns, tools: body.tools };
  return { model, chatBody, rawPrompt: null };
}

export function readOllamaGenerate(body: JsonObject): OllamaRequest {
  refuseFields(body, REFUSED_IN_GENERATE);
  const fields = parseFields(generateSchema, body);
  const { prompt, system } = fields;
  const model = modelName(fields.model);
  if (!prompt) return { model, chatBody: null, rawPrompt: null };
  const messages = [
    ...(system ? [{ role: "system", content: system }] : []),
    { role: "user", content: prompt },
  ];
  const chatBody = { ...translate(fields), messages };
  return { model, chatBody, rawPrompt: fields.raw ? prompt : null };
}

/** The model that is asked for. */
export function readOllamaShow(body: JsonObject): string | null {
  const { model, name } = parseFields(ollamaShowBody, body);
  if (typeof (model ?? name) === "string") return modelName(model ?? name);
  throw new RequestError('read field "model": wanted a string, found nothing', "model");
}

function modelName(name: string | null | undefined): string | null {
  if (name === null || name === undefined) return null;
  return name.endsWith(DEFAULT_TAG) ? name.slice(0, -DEFAULT_TAG.length) : name;
}

/** Fields and options under the names that the chat route has for them. */
function translate({ model, stream, options, format }: z.output<typeof chatSchema>): JsonObject {
  const { num_predict: limit, ...others } = options ?? {};
  return {
    ...others,
    model: modelName(model),
    stream: stream ?? true,
    response_format: formOf(format),
    max_tokens: typeof limit === "number" && limit < 0 ? null : limit,
  };
}

function formOf(format: z.output<typeof chatSchema>["format"]): unknown {
  if (format === undefined || format === null || format === "") return null;
  if (format === "json") return { type: "json_object" };
  return { type: "json_object", schema: format };
}

/**
 * Ollama's calls have no ids, and its results name the tool: a result answers the first call of
 * that tool that has none yet.
 */
function translateMessages(messages: readonly Message[]): JsonObject[] {
  const open: { readonly id: string; readonly name: string }[] = [];
  const takeId = (name: string | null | undefined) => {
    const at = Math.max(0, open.findIndex((call) => call.name === name));
    return open.splice(at, 1)[0]?.id ?? name ?? "tool";
  };
  let index = 0;
  const translateCall = (each: z.output<typeof call>) => {
    const { name } = each.function;
    const id = callId(name, index++);
    open.push({ id, name });
    return { id, function: each.function };
  };
  return messages.map(({ role, content, tool_calls: calls, tool_name: toolName }) => ({
    role,
    content,
    ...(role === "tool" && { tool_call_id: takeId(toolName) }),
    ...(calls && { tool_calls: calls.map(translateCall) }),
  }));
}
