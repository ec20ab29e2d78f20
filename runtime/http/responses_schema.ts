/** Bodies of OpenAI's responses API, checked, and as the chat route has them. */
import { z } from "zod";
import { RequestError } from "../errors.ts";
import { isObject } from "../json_text.ts";
import * as limits from "../limits.ts";
import type { Slices } from "../slices.ts";
import type { JsonObject } from "./body.ts";
import {
  anyObject as object,
  anyText,
  flag,
  integerFrom,
  listFrom,
  nameText as name,
  numberFrom,
  optional,
  parseFields,
  parseList,
  shownAs,
  textFrom,
  textOr,
  wanted,
  wholeList,
} from "./fields.ts";
import { nothing, only, refusedFields, refuseFields } from "./refused_fields.ts";

const part = z.object({
  type: z.enum(["input_text", "output_text", "text"], wanted("a part of text")),
  text: anyText,
}, wanted("an object"));
const text = textOr(listFrom(part, 0, limits.MAX_PARTS), "a string or a list of text parts");

const ROLES = ["system", "developer", "user", "assistant"] as const;

const message = z.object({
  type: optional(z.literal("message")),
  role: z.enum(ROLES, wanted(`one of ${ROLES.join(", ")}`)),
  content: text,
}, wanted("an object"));
const call = z.object({
  type: z.literal("function_call"),
  call_id: name,
  name,
  arguments: anyText,
});
const callOutput = z.object({
  type: z.literal("function_call_output"),
  call_id: name,
  output: text,
});
// Of other models: Kimi-Linear does not think apart, and gets none of it to read.
const reasoning = z.object({ type: z.literal("reasoning") });

const typed = z.discriminatedUnion(
  "type",
  [message.extend({ type: z.literal("message") }), call, callOutput, reasoning],
  wanted("a message, function_call, function_call_output or reasoning item"),
);

type Item = z.output<typeof message> | z.output<typeof typed>;

/** A message may come without its type. */
const checkedItem = z.custom<Item>(isObject, wanted("an object")).superRefine((value, context) => {
  const hasType = "type" in value && value.type !== null;
  const issues = (hasType ? typed : message).safeParse(value).error?.issues ?? [];
  for (const { path, message } of issues) {
    context.addIssue({ code: "custom", path, message, input: value });
  }
});

const item = shownAs(checkedItem, z.union([message, call, callOutput, reasoning]));

export const responsesTool = z.object({
  type: z.literal("function", wanted('"function": tools of a server are not run')),
  name,
  description: optional(anyText),
  parameters: optional(object),
  strict: optional(flag),
}, wanted("an object"));

export const responseForm = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({ type: z.literal("json_schema"), schema: object }),
], wanted('type "text", "json_object" or "json_schema"'));

export const responsesToolChoice = z.union([
  z.enum(["auto", "none", "required"]),
  z.object({ type: z.literal("function"), name }),
], wanted('"auto", "none", "required" or {"type": "function", "name": ...}'));

const schema = z.object({
  model: optional(anyText),
  instructions: optional(anyText),
  max_output_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS)),
  temperature: optional(numberFrom(0, limits.MAX_TEMPERATURE)),
  top_p: optional(numberFrom(0, 1)),
  top_logprobs: optional(integerFrom(0, limits.MAX_LOGPROBS)),
  include: optional(listFrom(textFrom(1, limits.MAX_NAME_CHARACTERS), 0, limits.MAX_PARTS)),
  stream: optional(flag),
  parallel_tool_calls: optional(flag),
  metadata: optional(object),
  text: optional(z.object({ format: optional(responseForm) }, wanted("an object"))),
  tool_choice: optional(responsesToolChoice),
});

const itemsField = { field: "input", item, least: 1, most: limits.MAX_MESSAGES };
const toolsField = { field: "tools", item: responsesTool, least: 0, most: limits.MAX_TOOLS };

/** What needs answers that are kept, and what the server would have to do by itself. */
const REFUSED = [
  only("background", false),
  only("truncation", "disabled"),
  ...["previous_response_id", "conversation", "prompt"]
    .map((name) => nothing(name, "no value: responses are not kept")),
];

/** The whole body, for the API's document. */
export const responsesBody = z.object({
  ...schema.shape,
  input: z.union([anyText, wholeList(itemsField)]),
  tools: optional(wholeList(toolsField)),
  ...refusedFields(REFUSED),
});

/** What clients list in `include` to get the tokens' log-probabilities. */
const LOGPROBS = "message.output_text.logprobs";

/** What of a request its answer repeats. */
export type ResponseFields = z.output<typeof schema> & {
  readonly tools: readonly z.output<typeof responsesTool>[];
};

/** The fields of a responses body, and the body of a chat request that asks the same. */
export async function readResponsesBody(
  body: JsonObject,
  slices: Slices,
): Promise<{ readonly fields: ResponseFields; readonly chatBody: JsonObject }> {
  refuseFields(body, REFUSED);
  const fields = parseFields(schema, body);
  const items = typeof body.input === "string"
    ? [{ role: "user" as const, content: body.input }]
    : await parseList<Item>(itemsField, body, slices);
  if (items === null) {
    const message = `a string or a list of 1 to ${limits.MAX_MESSAGES} items`;
    throw new RequestError(`read field "input": wanted ${message}, found none`, "input");
  }
  const tools = await parseList<z.output<typeof responsesTool>>(toolsField, body, slices) ?? [];
  const { instructions, tool_choice: choice } = fields;
  const system = instructions ? [{ role: "system", content: instructions }] : [];
  const messages = [...system, ...toChatMessages(items)];
  const chatBody = {
    model: fields.model,
    messages,
    max_tokens: fields.max_output_tokens,
    temperature: fields.temperature,
    top_p: fields.top_p,
    stream: fields.stream,
    logprobs: fields.include?.includes(LOGPROBS) === true,
    top_logprobs: fields.include?.includes(LOGPROBS) ? fields.top_logprobs : null,
    tools: tools.map(({ name, description, parameters, strict }) => ({
      type: "function",
      function: {
        name,
        ...(description && { description }),
        ...(parameters && { parameters }),
        ...(strict && { strict }),
      },
    })),
    tool_choice: isObject(choice) ? { type: "function", function: { name: choice.name } } : choice,
    parallel_tool_calls: fields.parallel_tool_calls,
    response_format: toResponseFormat(fields.text?.format),
  };
  return { fields: { ...fields, tools }, chatBody };
}

function toResponseFormat(value: z.output<typeof responseForm> | null | undefined): unknown {
  if (value?.type !== "json_schema") return value;
  return { type: "json_schema", json_schema: { schema: value.schema } };
}

interface Turn {
  readonly role: string;
  readonly content: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: JsonObject[];
}

/** Calls are items of their own here, and a part of the assistant's message there. */
function toChatMessages(items: readonly Item[]): Turn[] {
  const turns: Turn[] = [];
  for (const each of items) {
    if (each.type === "reasoning") continue;
    if (each.type === "function_call_output") {
      turns.push({ role: "tool", tool_call_id: each.call_id, content: plainText(each.output) });
    } else if (each.type === "function_call") {
      const { call_id: id, name, arguments: text } = each;
      const toolCall = { id, type: "function", function: { name, arguments: text } };
      const last = turns.at(-1);
      if (last?.role !== "assistant") {
        turns.push({ role: "assistant", content: "", tool_calls: [toolCall] });
      } else {
        turns[turns.length - 1] = { ...last, tool_calls: [...last.tool_calls ?? [], toolCall] };
      }
    } else {
      turns.push({ role: each.role, content: plainText(each.content) });
    }
  }
  return turns;
}

function plainText(content: z.output<typeof text>): string {
  return typeof content === "string" ? content : content.map((each) => each.text).join("");
}
