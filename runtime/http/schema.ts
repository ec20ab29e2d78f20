/** The bodies of the OpenAI routes, checked. */
import { z } from "zod";
import { RequestError } from "../errors.ts";
import { isObject } from "../json_text.ts";
import { countForms, grammarFields } from "./grammar.ts";
import * as limits from "../limits.ts";
import type { ChatMessage } from "../chat/template.ts";
import type { Slices } from "../slices.ts";
import type { JsonObject } from "./body.ts";
import {
  anyObject,
  anyText,
  flag,
  integerFrom,
  listFrom,
  nameText,
  numberFrom,
  optional,
  parseFields,
  parseList,
  requireList,
  textFrom,
  textOr,
  wanted,
} from "./fields.ts";
import { REFUSED_IN_CHAT, REFUSED_IN_COMPLETIONS, refuseFields } from "./refused_fields.ts";

const stopString = textFrom(1, limits.MAX_STOP_CHARACTERS)
  .refine((text) => text.isWellFormed(), wanted("a string without half characters"));

/** A list where clients may also give its one item alone; parsed to a list. */
const stop = z.unknown().optional().transform((value, context): readonly string[] => {
  const schema = typeof value === "string" ? stopString : listFrom(stopString, 0, limits.MAX_STOPS);
  if (value === null || value === undefined) return [];
  const result = schema.safeParse(value);
  if (!result.success) {
    for (const { path, message } of result.error.issues) {
      context.addIssue({ code: "custom", path, message, input: value });
    }
    return z.NEVER;
  }
  return typeof result.data === "string" ? [result.data] : result.data;
});

/**
 * `logit_bias` as OpenAI's object of ids and as llama-server's list of pairs, in which false bans a
 * token; parsed to pairs. Ids are checked against the vocabulary by `checkGeneration`.
 */
const logitBias = z.unknown().optional().transform(
  (value, context): readonly [number, number][] => {
    if (value === null || value === undefined) return [];
    const refuse = (message: string, path: PropertyKey[] = []) => {
      context.addIssue({ code: "custom", path, message, input: value });
      return z.NEVER;
    };
    const isList = Array.isArray(value);
    if (!isList && typeof value !== "object") return refuse("an object of token ids and biases");
    const pairs: [unknown, unknown][] = isList ? value : Object.entries(value);
    if (pairs.length > limits.MAX_LOGIT_BIASES) {
      return refuse(`at most ${limits.MAX_LOGIT_BIASES} token ids`);
    }
    const biases = new Map<number, number>();
    for (const [at, pair] of pairs.entries()) {
      if (!Array.isArray(pair) || pair.length !== 2) return refuse("a pair of id and bias", [at]);
      const id = isList ? pair[0] : wholeNumber(pair[0]);
      const bias = isList && pair[1] === false ? -limits.MAX_LOGIT_BIAS : pair[1];
      if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0) {
        // A key that is no id is any text of the client's.
        return isList ? refuse("a token id", [at]) : refuse("token ids as keys");
      }
      const path = [isList ? at : String(pair[0])];
      if (typeof bias !== "number" || !(Math.abs(bias) <= limits.MAX_LOGIT_BIAS)) {
        return refuse(`a bias from -${limits.MAX_LOGIT_BIAS} to ${limits.MAX_LOGIT_BIAS}`, path);
      }
      biases.set(id, bias);
    }
    return [...biases];
  },
);

function wholeNumber(text: unknown): number {
  return typeof text === "string" && /^\d{1,10}$/.test(text) ? Number(text) : NaN;
}

const penalty = optional(numberFrom(-limits.MAX_PENALTY, limits.MAX_PENALTY));
const repetition = optional(
  numberFrom(limits.MIN_REPETITION_PENALTY, limits.MAX_REPETITION_PENALTY),
);

const generationFields = {
  model: optional(anyText),
  max_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS)),
  temperature: optional(numberFrom(0, limits.MAX_TEMPERATURE)),
  top_p: optional(numberFrom(0, 1)),
  // -1 is how some clients write "all tokens"; 0 means the same.
  top_k: optional(integerFrom(-1, limits.MAX_TOP_K_TOKENS)),
  min_p: optional(numberFrom(0, 1)),
  // llama-server's name and TabbyAPI's.
  typical_p: optional(numberFrom(0, 1)),
  typical: optional(numberFrom(0, 1)),
  frequency_penalty: penalty,
  presence_penalty: penalty,
  // vLLM's name and llama-server's.
  repetition_penalty: repetition,
  repeat_penalty: repetition,
  logit_bias: logitBias,
  return_progress: optional(flag),
  // -1 is how some clients write "random"; so does leaving it out.
  seed: optional(integerFrom(-1, Number.MAX_SAFE_INTEGER)),
  stop,
  stop_token_ids: optional(
    listFrom(integerFrom(0, limits.MAX_VOCABULARY_TOKENS - 1), 0, limits.MAX_STOP_TOKEN_IDS),
  ),
  ignore_eos: optional(flag),
  min_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS)),
  stream: optional(flag),
  stream_options: optional(z.object({ include_usage: optional(flag) }, wanted("an object"))),
  n: optional(integerFrom(1, limits.MAX_CHOICES)),
  ...grammarFields,
};

const textPart = z.object({
  type: z.literal("text", wanted('"text"')),
  text: anyText,
}, wanted("an object"));

const textParts = listFrom(textPart, 0, limits.MAX_PARTS);

const content = optional(textOr(textParts, "a string or a list of text parts"));

const toolCall = z.object({
  id: textFrom(0, limits.MAX_NAME_CHARACTERS),
  type: optional(z.literal("function", wanted('"function"'))),
  function: z.object({
    name: nameText,
    arguments: z.custom<string | JsonObject>(
      (value) => typeof value === "string" || isObject(value),
      wanted("a string or an object"),
    ),
  }, wanted("an object")),
}, wanted("an object"));

const ROLES = ["system", "developer", "user", "assistant", "tool"] as const;

const message = z.object({
  role: z.enum(ROLES, wanted(`one of ${ROLES.join(", ")}`)),
  content,
  name: optional(textFrom(0, limits.MAX_NAME_CHARACTERS)),
  tool_calls: optional(listFrom(toolCall, 0, limits.MAX_PARTS)),
  tool_call_id: optional(textFrom(0, limits.MAX_NAME_CHARACTERS)),
}, wanted("an object")).superRefine((value, context) => {
  const refuse = (field: string, message: string) =>
    context.addIssue({ code: "custom", path: [field], message, input: value });
  const calls = value.tool_calls?.length ?? 0;
  if (value.role !== "assistant" && calls > 0) refuse("tool_calls", "tool calls of an assistant");
  if ((value.content ?? null) === null && calls === 0) {
    refuse("content", "a string or a list of text parts");
  }
  if (value.role === "tool" && typeof value.tool_call_id !== "string") {
    refuse("tool_call_id", "the id of the call that this message answers");
  }
});

const toolShape = z.object({
  type: z.literal("function", wanted('"function"')),
  function: z.object({
    name: nameText,
    description: optional(anyText),
    parameters: optional(anyObject),
    strict: optional(flag),
  }, wanted("an object")),
});

/** Loose: the prompt shows the model the tool as the client wrote it, with all its keys. */
const tool = z.custom<JsonObject>(isObject, wanted("an object")).superRefine((value, context) => {
  for (const { path, message } of toolShape.safeParse(value).error?.issues ?? []) {
    context.addIssue({ code: "custom", path, message, input: value });
  }
});

const messagesField = { field: "messages", item: message, least: 1, most: limits.MAX_MESSAGES };
const toolsField = { field: "tools", item: tool, least: 0, most: limits.MAX_TOOLS };

/** A conversation, checked; `messages`: null when there are none. */
export async function parseConversation(body: JsonObject, slices: Slices) {
  return {
    messages: await parseList<ChatMessage>(messagesField, body, slices),
    tools: await parseList<JsonObject>(toolsField, body, slices),
  };
}

const toolChoice = optional(z.union([
  z.enum(["auto", "none", "required"]),
  z.object({
    type: z.literal("function"),
    function: z.object({ name: nameText }),
  }),
], wanted('"auto", "none", "required" or {"type": "function", "function": {"name": ...}}')));

const chatSchema = z.object({
  ...generationFields,
  max_completion_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS)),
  continue_final_message: optional(flag),
  tool_choice: toolChoice,
  parallel_tool_calls: optional(flag),
  logprobs: optional(flag),
  top_logprobs: optional(integerFrom(0, limits.MAX_LOGPROBS)),
}).superRefine((value, context) => {
  if (value.logprobs || typeof value.top_logprobs !== "number") return;
  const message = 'no value unless "logprobs" is true';
  context.addIssue({ code: "custom", path: ["top_logprobs"], message, input: value });
});

/** Token ids below `size`, as a list of numbers from a request. */
export function idList(size: number) {
  return z.custom<readonly number[]>(Array.isArray, wanted("a list of token ids"))
    .superRefine((ids, context) => {
      if (ids.length > limits.MAX_PROMPT_TOKENS) {
        const message = `a list of at most ${limits.MAX_PROMPT_TOKENS} token ids`;
        context.addIssue({ code: "custom", message, input: ids });
        return;
      }
      const at = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < size));
      if (at < 0) return;
      const message = `a token id from 0 to ${size - 1}`;
      context.addIssue({ code: "custom", path: [at], message, input: ids });
    });
}

/** One prompt: text or token ids, neither of them empty. */
export type Prompt = string | readonly number[];

/** `prompt` of a completions request in its four forms; parsed to a list of prompts. */
function promptField(vocabularySize: number) {
  const text = anyText.refine((value) => value !== "", wanted("at least one token of prompt"));
  const ids = idList(vocabularySize)
    .refine((value) => value.length > 0, wanted("at least one token of prompt"));
  return z.unknown().optional().transform((value, context): readonly Prompt[] => {
    const refuse = (message: string, path: PropertyKey[] = []) => {
      context.addIssue({ code: "custom", path, message, input: value });
      return z.NEVER;
    };
    const parse = (prompt: unknown, path: PropertyKey[]): Prompt => {
      const schema = Array.isArray(prompt) ? ids : text;
      const result = (schema as z.ZodType<Prompt>).safeParse(prompt);
      if (result.success) return result.data;
      const issue = result.error.issues[0]!;
      return refuse(issue.message, [...path, ...issue.path]);
    };
    if (typeof value === "string") return [parse(value, [])];
    if (!Array.isArray(value)) return refuse("a string, a list of token ids, or a list of either");
    if (value.length === 0) return refuse("at least one token of prompt");
    if (typeof value[0] === "number") return [parse(value, [])];
    if (value.length > limits.MAX_PROMPTS) {
      return refuse(`a list of at most ${limits.MAX_PROMPTS} prompts`);
    }
    return value.map((prompt, index) => parse(prompt, [index]));
  });
}

function completionSchema(vocabularySize: number) {
  return z.object({
    ...generationFields,
    prompt: promptField(vocabularySize),
    echo: optional(flag),
    logprobs: optional(integerFrom(0, limits.MAX_LOGPROBS)),
  });
}

export interface ChatRequest extends z.output<typeof chatSchema> {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly JsonObject[] | null;
}
export type CompletionRequest = z.output<ReturnType<typeof completionSchema>>;
/** The fields that both routes share. */
export type GenerationFields = Omit<CompletionRequest, "prompt" | "echo" | "logprobs">;

export async function parseChatRequest(
  body: JsonObject,
  vocabularySize: number,
  slices: Slices,
): Promise<ChatRequest> {
  refuseFields(body, REFUSED_IN_CHAT);
  const fields = checkGeneration(parseFields(chatSchema, body), vocabularySize);
  const conversation = await parseConversation(body, slices);
  const messages = requireList(messagesField, conversation.messages);
  const { tools } = conversation;
  if (fields.continue_final_message) checkBeginning(messages.at(-1)!);
  checkToolChoice(fields, tools ?? []);
  return { ...fields, messages, tools };
}

/** Throws unless the message can be the beginning of an answer. */
function checkBeginning({ role, tool_calls }: ChatMessage): void {
  if (role === "assistant" && (tool_calls?.length ?? 0) === 0) return;
  throw new RequestError(
    'read field "continue_final_message": wanted an assistant message without calls as the last, ' +
      `found ${role === "assistant" ? "calls" : "another role"}`,
    "continue_final_message",
  );
}

/** Throws for a choice that the tools don't hold, or that another form of the answer excludes. */
function checkToolChoice(
  fields: z.output<typeof chatSchema>,
  tools: readonly JsonObject[],
): void {
  const { tool_choice: choice } = fields;
  if (choice === null || choice === undefined || choice === "auto" || choice === "none") return;
  const refuse = (text: string) => {
    throw new RequestError(`read field "tool_choice": ${text}`, "tool_choice");
  };
  const has = typeof choice === "string"
    ? tools.length > 0
    : tools.some((tool) => (tool.function as JsonObject).name === choice.function.name);
  if (!has) refuse('wanted a function of "tools", found none');
  if (countForms(fields) > 0) refuse("wanted no other form of the answer, found one");
}

/** Schemas by vocabulary size, of which a server has one: making one takes 0.1 ms. */
const completionSchemas = new Map<number, ReturnType<typeof completionSchema>>();

export function parseCompletionRequest(
  body: JsonObject,
  vocabularySize: number,
): CompletionRequest {
  refuseFields(body, REFUSED_IN_COMPLETIONS);
  let schema = completionSchemas.get(vocabularySize);
  if (schema === undefined) {
    completionSchemas.set(vocabularySize, schema = completionSchema(vocabularySize));
  }
  const fields = parseFields(schema, body);
  const choices = fields.prompt.length * (fields.n ?? 1);
  if (choices > limits.MAX_PROMPTS) {
    throw new RequestError(
      `read field "n": wanted at most ${limits.MAX_PROMPTS} choices over all prompts, ` +
        `found ${choices}`,
      "n",
    );
  }
  return checkGeneration(fields, vocabularySize);
}

/** Two names of one field: given both, they must agree. */
const ALIASES = [["repetition_penalty", "repeat_penalty"], ["typical_p", "typical"]] as const;

/** What one field alone can't tell. */
function checkGeneration<T extends GenerationFields>(fields: T, size: number): T {
  const refuse = (name: string, wanted: string, found: unknown) => {
    throw new RequestError(`read field "${name}": wanted ${wanted}, found ${found}`, name);
  };
  const beyond = fields.logit_bias.find(([id]) => id >= size);
  if (beyond !== undefined) refuse("logit_bias", `token ids below ${size}`, beyond[0]);
  const stopId = fields.stop_token_ids?.find((id) => id >= size);
  if (stopId !== undefined) refuse("stop_token_ids", `token ids below ${size}`, stopId);
  const forms = countForms(fields);
  if (forms > 1) refuse("response_format", "one form of the answer", forms);
  for (const [name, alias] of ALIASES) {
    const value = fields[name], other = fields[alias];
    if (typeof value !== "number" || typeof other !== "number" || value === other) continue;
    refuse(alias, `what "${name}" says, or no value`, other);
  }
  return fields;
}
