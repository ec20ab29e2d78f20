/** The bodies of the OpenAI routes, checked. */
import { z } from "zod";
import { RequestError } from "../errors.ts";
import { isObject } from "../json_text.ts";
import { generationFields } from "./generation_fields.ts";
import { countForms } from "./grammar.ts";
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
  optional,
  parseFields,
  parseList,
  requireList,
  shownAs,
  textFrom,
  textOr,
  wanted,
  wholeList,
} from "./fields.ts";
import {
  REFUSED_IN_CHAT,
  REFUSED_IN_COMPLETIONS,
  refusedFields,
  refuseFields,
} from "./refused_fields.ts";

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
    arguments: shownAs(
      z.custom<string | JsonObject>(
        (value) => typeof value === "string" || isObject(value),
        wanted("a string or an object"),
      ),
      z.union([anyText, anyObject]),
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
const checkedTool = z.custom<JsonObject>(isObject, wanted("an object"))
  .superRefine((value, context) => {
    for (const { path, message } of toolShape.safeParse(value).error?.issues ?? []) {
      context.addIssue({ code: "custom", path, message, input: value });
    }
  });
const tool = shownAs(checkedTool, toolShape);

const messagesField = { field: "messages", item: message, least: 1, most: limits.MAX_MESSAGES };
const toolsField = { field: "tools", item: tool, least: 0, most: limits.MAX_TOOLS };

/** The fields of a conversation as `parseConversation` checks them. */
export const conversationShape = {
  messages: wholeList(messagesField),
  tools: optional(wholeList(toolsField)),
};

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
  max_completion_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS))
    .describe("Goes before max_tokens"),
  continue_final_message: optional(flag)
    .describe("The answer goes on with the last message, an assistant's without calls"),
  tool_choice: toolChoice,
  parallel_tool_calls: optional(flag),
  logprobs: optional(flag),
  top_logprobs: optional(integerFrom(0, limits.MAX_LOGPROBS)),
}).superRefine((value, context) => {
  if (value.logprobs || typeof value.top_logprobs !== "number") return;
  const message = 'no value unless "logprobs" is true';
  context.addIssue({ code: "custom", path: ["top_logprobs"], message, input: value });
});

/** The whole body, for the API's document. */
export const chatBody = z.object({
  ...conversationShape,
  ...chatSchema.shape,
  ...refusedFields(REFUSED_IN_CHAT),
});

/** Token ids below `size`, as a list of numbers from a request. */
export function idList(size: number) {
  const schema = z.custom<readonly number[]>(Array.isArray, wanted("a list of token ids"))
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
  return shownAs(schema, listFrom(integerFrom(0, size - 1), 0, limits.MAX_PROMPT_TOKENS));
}

/** One prompt: text or token ids, neither of them empty. */
export type Prompt = string | readonly number[];

/** `prompt` of a completions request in its four forms; parsed to a list of prompts. */
function promptField(vocabularySize: number) {
  const text = anyText.refine((value) => value !== "", wanted("at least one token of prompt"));
  const ids = idList(vocabularySize)
    .refine((value) => value.length > 0, wanted("at least one token of prompt"));
  const schema = z.unknown().optional().transform((value, context): readonly Prompt[] => {
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
  const someText = z.string().min(1);
  const someIds = listFrom(integerFrom(0, vocabularySize - 1), 1, limits.MAX_PROMPT_TOKENS);
  const prompts = listFrom(z.union([someText, someIds]), 1, limits.MAX_PROMPTS);
  return shownAs(schema, z.union([someText, someIds, prompts]));
}

function completionSchema(vocabularySize: number) {
  return z.object({
    ...generationFields,
    prompt: promptField(vocabularySize),
    echo: optional(flag),
    logprobs: optional(integerFrom(0, limits.MAX_LOGPROBS)),
  });
}

/** The whole body, for the API's document. */
export function completionBody(vocabularySize: number) {
  const { shape } = completionSchema(vocabularySize);
  return z.object({ ...shape, ...refusedFields(REFUSED_IN_COMPLETIONS) });
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
