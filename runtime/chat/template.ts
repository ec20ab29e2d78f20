/**
 * Kimi's chat layout: messages in, segments of text out.
 *
 * A turn is `<|im_{kind}|>{name}<|im_middle|>{content}<|im_end|>`, with nothing between turns and
 * no token before the first. The markers are the only trusted segments: whatever comes from a
 * request (role, name, content, tools, calls, ids) is ordinary text and can't become a marker.
 */

import { RequestError } from "../errors.ts";
import { MAX_TOOL_KEYS, SLICE_ITEMS } from "../limits.ts";
import type { Slices } from "../slices.ts";
import { COMPACT_JSON, type JsonStyle, JsonWriter } from "./json_writer.ts";
import {
  CALL_ARGUMENTS,
  CALL_BEGIN,
  CALL_END,
  CALLS_BEGIN,
  CALLS_END,
  withKimiIds,
} from "./tool_calls.ts";

/** A piece of a prompt. */
export interface Segment {
  /** Trusted: exactly one marker. Otherwise any text. */
  readonly text: string;
  /** Whether the text becomes a special token. */
  readonly trusted: boolean;
}

export interface TextPart {
  readonly type: "text";
  readonly text: string;
}

export interface ToolCall {
  readonly id: string;
  readonly function: {
    readonly name: string;
    /** JSON text, put in as it is; any other value is written as JSON. */
    readonly arguments: unknown;
  };
}

/** A message with the field names that clients send. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: string | readonly TextPart[] | null | undefined;
  /** Shown in place of the role when not empty. */
  readonly name?: string | null | undefined;
  readonly tool_calls?: readonly ToolCall[] | null | undefined;
  readonly tool_call_id?: string | null | undefined;
}

const MARKER_OF_ROLE: ReadonlyMap<string, string> = new Map([
  ["user", "<|im_user|>"],
  ["assistant", "<|im_assistant|>"],
]);
const SYSTEM_MARKER = "<|im_system|>";
const MIDDLE = "<|im_middle|>";
const END = "<|im_end|>";

/**
 * What follows the last message: the model's turn; nothing; or, where the last message is the
 * beginning of the model's own, the rest of it.
 */
export type PromptEnd = "answer" | "nothing" | "rest";

/** Joins neighbouring texts, so that they are split into tokens as the one text they are. */
class SegmentList {
  readonly segments: Segment[] = [];
  #text = "";

  marker(text: string): void {
    this.#endText();
    this.segments.push({ text, trusted: true });
  }

  text(text: string): void {
    this.#text += text;
  }

  finish(): Segment[] {
    this.#endText();
    return this.segments;
  }

  #endText(): void {
    if (this.#text !== "") this.segments.push({ text: this.#text, trusted: false });
    this.#text = "";
  }
}

/**
 * Renders a conversation. `tools` are OpenAI tool objects; they form a turn before all others,
 * keys sorted as Kimi's tokenizer does. A `developer` message is a system message.
 */
export function renderChat(
  messages: readonly ChatMessage[],
  tools: readonly unknown[] | null,
  end: PromptEnd = "answer",
): Segment[] {
  const list = new SegmentList();
  const steps = renderSteps(list, messages, tools, end);
  while (!steps.next().done);
  return list.finish();
}

/** The same, giving way to other work. */
export async function renderChatInSlices(
  messages: readonly ChatMessage[],
  tools: readonly unknown[] | null,
  end: PromptEnd,
  slices: Slices,
): Promise<Segment[]> {
  const list = new SegmentList();
  const steps = renderSteps(list, messages, tools, end);
  while (!steps.next().done) await slices.giveWay();
  return list.finish();
}

/** Renders into `list`; each step takes well below a millisecond. */
function* renderSteps(
  list: SegmentList,
  messages: readonly ChatMessage[],
  tools: readonly unknown[] | null,
  end: PromptEnd,
): Generator<void, void> {
  if (tools !== null && tools.length > 0) {
    list.marker(SYSTEM_MARKER);
    list.text("tool_declare");
    list.marker(MIDDLE);
    list.text(yield* writeSteps(tools, SORTED_JSON));
    list.marker(END);
  }
  const renamed = withKimiIds(messages);
  for (const [at, message] of renamed.entries()) {
    yield* renderMessage(list, message);
    if (end !== "rest" || at < renamed.length - 1) list.marker(END);
    yield;
  }
  if (end === "answer") {
    list.marker("<|im_assistant|>");
    list.text("assistant");
    list.marker(MIDDLE);
  }
}

function* renderMessage(list: SegmentList, message: ChatMessage): Generator<void, void> {
  const role = message.role === "developer" ? "system" : message.role;
  list.marker(MARKER_OF_ROLE.get(role) ?? SYSTEM_MARKER);
  list.text(message.name || role);
  list.marker(MIDDLE);
  if (role === "tool") {
    list.text(`## Return of ${message.tool_call_id ?? ""}\n`);
  }
  list.text(contentText(message.content));
  const calls = message.tool_calls ?? [];
  if (role !== "tool" && calls.length > 0) {
    list.marker(CALLS_BEGIN);
    for (const call of calls) {
      list.marker(CALL_BEGIN);
      list.text(call.id);
      list.marker(CALL_ARGUMENTS);
      const given = call.function.arguments;
      list.text(typeof given === "string" ? given : yield* writeSteps(given, SPACED_JSON));
      list.marker(CALL_END);
    }
    list.marker(CALLS_END);
  }
}

/** The text of a message's content, its parts joined. */
export function contentText(content: ChatMessage["content"]): string {
  if (content === null || content === undefined) return "";
  return typeof content === "string" ? content : content.map((part) => part.text).join("");
}

/** Without spaces, the keys of every object in code point order, non-ASCII as it is. */
const SORTED_JSON: JsonStyle = {
  ...COMPACT_JSON,
  order(keys) {
    // All keys of one object are sorted at once.
    if (keys.length > MAX_TOOL_KEYS) {
      throw new RequestError(
        `read field "tools": wanted objects of at most ${MAX_TOOL_KEYS} keys, found ${keys.length}`,
        "tools",
      );
    }
    return keys.sort(compareCodePoints);
  },
};

/** As chat templates write: `, ` and `: ` between parts, keys as they came. */
const SPACED_JSON: JsonStyle = { comma: ", ", colon: ": ", order: (keys) => keys };

export function sortedCompactJson(value: unknown): string {
  const writer = new JsonWriter(value, SORTED_JSON);
  writer.step(Infinity);
  return writer.take();
}

function* writeSteps(value: unknown, style: JsonStyle): Generator<void, string> {
  const writer = new JsonWriter(value, style);
  while (!writer.step(SLICE_ITEMS)) yield;
  return writer.take();
}

/** The order of Python's `sorted`; JavaScript's own compares UTF-16 units. */
function compareCodePoints(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  let at = 0;
  while (at < shared && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  if (at === shared) return a.length - b.length;
  // Both have the first half of a character before here: then that character differs.
  if (at > 0 && isFirstHalf(a.charCodeAt(at - 1))) at--;
  return a.codePointAt(at)! - b.codePointAt(at)!;
}

function isFirstHalf(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}
