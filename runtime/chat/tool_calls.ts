/** Kimi's tool calls: their markers, their ids, and the names in what a model writes. */
import type { ChatMessage, ToolCall } from "./template.ts";

export const CALLS_BEGIN = "<|tool_calls_section_begin|>";
export const CALLS_END = "<|tool_calls_section_end|>";
export const CALL_BEGIN = "<|tool_call_begin|>";
export const CALL_ARGUMENTS = "<|tool_call_argument_begin|>";
export const CALL_END = "<|tool_call_end|>";

const PREFIX = "functions.";

/**
 * The id of a conversation's `index`th call, as the model was trained to write it; "": its start.
 */
export function callId(name: string, index: number | ""): string {
  return `${PREFIX}${name}:${index}`;
}

/**
 * The function that a call's header names: `functions.NAME:INDEX`, where prefix and index may be
 * missing. "" when there is none.
 */
export function calledName(header: string, declared: ReadonlySet<string>): string {
  const colon = header.lastIndexOf(":");
  const path = colon < 0 ? header : header.slice(0, colon);
  const name = path.startsWith(PREFIX) ? path.slice(PREFIX.length) : path;
  if (declared.has(name)) return name;
  // `functionsNAME5`, as Kimi models write now and then.
  const word = PREFIX.slice(0, -1);
  if (colon < 0 && !name.includes(".") && name.startsWith(word)) {
    const rest = name.slice(word.length);
    const known = [...declared].filter((each) => rest.startsWith(each));
    const best = known.reduce((best, each) => each.length > best.length ? each : best, "");
    if (best !== "") return best;
  }
  return name.slice(name.lastIndexOf(".") + 1);
}

/**
 * The messages with every call's id as the model knows ids, and the results that answer them with
 * the same: a model that reads other ids (`call_abc`) stops calling tools. The index runs over the
 * whole conversation.
 */
export function withKimiIds(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  if (!messages.some(({ tool_calls }) => (tool_calls?.length ?? 0) > 0)) return messages;
  const idOf = new Map<string, string>();
  let index = 0;
  const rename = (call: ToolCall): ToolCall => {
    const { name } = call.function;
    const id = isKimiId(call.id, name) ? call.id : callId(name, index);
    index++;
    idOf.set(call.id, id);
    return { ...call, id };
  };
  return messages.map((message) => {
    const { tool_calls, tool_call_id } = message;
    if ((tool_calls?.length ?? 0) > 0) return { ...message, tool_calls: tool_calls!.map(rename) };
    const id = idOf.get(tool_call_id ?? "");
    return id === undefined ? message : { ...message, tool_call_id: id };
  });
}

function isKimiId(id: string, name: string): boolean {
  const start = `${PREFIX}${name}:`;
  if (!id.startsWith(start) || id.length === start.length) return false;
  for (let at = start.length; at < id.length; at++) {
    const unit = id.charCodeAt(at);
    if (unit < 0x30 || unit > 0x39) return false;
  }
  return true;
}
