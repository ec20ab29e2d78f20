/** Bodies of Anthropic's messages API, checked, and as the chat route has them. */
import { z } from "zod";
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
  requireList,
  textFrom,
  textOr,
  wanted,
  wholeList,
} from "./fields.ts";
import { nothing, only, refusedFields, refuseFields } from "./refused_fields.ts";

const textBlock = z.object({ type: z.literal("text", wanted('"text"')), text: anyText });
const textBlocks = listFrom(textBlock, 0, limits.MAX_PARTS);
const text = textOr(textBlocks, "a string or a list of text blocks");

const block = z.discriminatedUnion("type", [
  textBlock,
  z.object({ type: z.literal("tool_use"), id: name, name, input: object }),
  z.object({
    type: z.literal("tool_result"),
    tool_use_id: name,
    content: optional(text),
    is_error: optional(flag),
  }),
  // Of other models: Kimi-Linear does not think apart, and gets none of it to read.
  z.object({ type: z.literal("thinking") }),
  z.object({ type: z.literal("redacted_thinking") }),
], wanted("a text, tool_use or tool_result block"));

type Block = z.output<typeof block>;

const message = z.object({
  // Agents put what they have to say to the model between the turns as "system".
  role: z.enum(["user", "assistant", "system"], wanted('"user", "assistant" or "system"')),
  content: textOr(listFrom(block, 0, limits.MAX_PARTS), "a string or a list of blocks"),
}, wanted("an object"));

type Message = z.output<typeof message>;

const tool = z.object({
  type: optional(z.literal("custom", wanted('"custom": tools of a server are not run'))),
  name,
  description: optional(anyText),
  input_schema: object,
  strict: optional(flag),
}, wanted("an object"));

const schema = z.object({
  model: optional(anyText),
  system: optional(text),
  stop_sequences: optional(
    listFrom(textFrom(1, limits.MAX_STOP_CHARACTERS), 0, limits.MAX_STOPS),
  ),
  stream: optional(flag),
  temperature: optional(numberFrom(0, limits.MAX_TEMPERATURE)),
  top_p: optional(numberFrom(0, 1)),
  top_k: optional(integerFrom(-1, limits.MAX_TOP_K_TOKENS)),
  tool_choice: optional(z.object({
    type: z.enum(["auto", "none", "any", "tool"], wanted('"auto", "none", "any" or "tool"')),
    name: optional(name),
    disable_parallel_tool_use: optional(flag),
  }, wanted("an object"))),
  output_config: optional(z.object({
    format: optional(z.object({
      type: z.literal("json_schema", wanted('"json_schema"')),
      schema: object,
    }, wanted("an object"))),
  }, wanted("an object"))),
});

/** What a server would have to do by itself. */
const REFUSED = [only("mcp_servers", []), nothing("container")];

const maxTokens = z.object({ max_tokens: integerFrom(0, limits.MAX_COMPLETION_TOKENS) });

const messagesField = { field: "messages", item: message, least: 1, most: limits.MAX_MESSAGES };
const toolsField = { field: "tools", item: tool, least: 0, most: limits.MAX_TOOLS };

/** The whole bodies, for the API's document. */
export const countTokensBody = z.object({
  ...schema.shape,
  messages: wholeList(messagesField),
  tools: optional(wholeList(toolsField)),
  ...refusedFields(REFUSED),
});
export const messagesBody = countTokensBody.extend(maxTokens.shape);

/**
 * The body of a chat request that asks the same. Where the last message is the assistant's, the
 * answer goes on with it. `counts`: only the prompt's tokens are wanted, so no limit is required.
 */
export async function toChatBody(
  body: JsonObject,
  counts: boolean,
  slices: Slices,
): Promise<JsonObject> {
  refuseFields(body, REFUSED);
  const fields = parseFields(schema, body);
  const limit = counts ? 0 : parseFields(maxTokens, body).max_tokens;
  const messages = requireList(
    messagesField,
    await parseList<Message>(messagesField, body, slices),
  );
  const tools = await parseList<z.output<typeof tool>>(toolsField, body, slices);
  const system = plainText(fields.system ?? "");
  const turns = messages.flatMap(toChatMessages);
  const last = turns.at(-1);
  const { tool_choice: choice } = fields;
  return {
    model: fields.model,
    max_tokens: limit,
    messages: [...(system === "" ? [] : [{ role: "system", content: system }]), ...turns],
    stop: fields.stop_sequences,
    stream: fields.stream,
    temperature: fields.temperature,
    top_p: fields.top_p,
    top_k: fields.top_k,
    tools: tools?.map((each) => ({
      type: "function",
      function: {
        name: each.name,
        ...(each.description && { description: each.description }),
        parameters: each.input_schema,
        ...(each.strict && { strict: true }),
      },
    })),
    tool_choice: toolChoice(choice),
    response_format: responseFormat(fields.output_config?.format?.schema),
    parallel_tool_calls: choice?.disable_parallel_tool_use === true ? false : null,
    continue_final_message: last?.role === "assistant" && last.tool_calls === undefined,
  };
}

/** The choice as the chat route has it; a tool without a name is one that nobody has. */
function toolChoice(choice: z.output<typeof schema>["tool_choice"]): unknown {
  if (choice?.type === "any") return "required";
  if (choice?.type !== "tool") return choice?.type;
  return { type: "function", function: { name: choice.name ?? "" } };
}

function responseFormat(form: JsonObject | undefined): unknown {
  return form === undefined ? null : { type: "json_schema", json_schema: { schema: form } };
}

interface Turn {
  readonly role: string;
  readonly content: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: readonly JsonObject[];
}

/** Results of tools are blocks of a user's message here, and messages of their own there. */
function toChatMessages({ role, content }: Message): Turn[] {
  if (typeof content === "string") return [{ role, content }];
  const turns: Turn[] = [];
  for (const each of content) {
    if (each.type !== "tool_result") continue;
    const result = plainText(each.content ?? "");
    const text = each.is_error === true ? `Error: ${result}` : result;
    turns.push({ role: "tool", tool_call_id: each.tool_use_id, content: text });
  }
  const said = content.flatMap((each) => each.type === "text" ? [each.text] : []).join("");
  const calls = content.flatMap((each) => each.type === "tool_use" ? [toCall(each)] : []);
  if (calls.length > 0) turns.push({ role, content: said, tool_calls: calls });
  else if (said !== "" || turns.length === 0) turns.push({ role, content: said });
  return turns;
}

function toCall({ id, name, input }: Extract<Block, { type: "tool_use" }>): JsonObject {
  return { id, type: "function", function: { name, arguments: input } };
}

function plainText(content: z.output<typeof text>): string {
  return typeof content === "string" ? content : content.map((each) => each.text).join("");
}
