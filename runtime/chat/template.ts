/**
 * Kimi's chat layout: messages in, segments of text out.
 *
 * A turn is `<|im_{kind}|>{name}<|im_middle|>{content}<|im_end|>`, with nothing between turns and
 * no token before the first. The markers are the only trusted segments: whatever comes from a
 * request (role, name, content, tools, calls, ids) is ordinary text and can't become a marker.
 */

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
const CALLS_BEGIN = "<|tool_calls_section_begin|>";
const CALLS_END = "<|tool_calls_section_end|>";
const CALL_BEGIN = "<|tool_call_begin|>";
const CALL_ARGUMENTS = "<|tool_call_argument_begin|>";
const CALL_END = "<|tool_call_end|>";

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
  addGenerationPrompt = true,
): Segment[] {
  const list = new SegmentList();
  if (tools !== null && tools.length > 0) {
    list.marker(SYSTEM_MARKER);
    list.text("tool_declare");
    list.marker(MIDDLE);
    list.text(sortedCompactJson(tools));
    list.marker(END);
  }
  for (const message of messages) renderMessage(list, message);
  if (addGenerationPrompt) {
    list.marker("<|im_assistant|>");
    list.text("assistant");
    list.marker(MIDDLE);
  }
  return list.finish();
}

function renderMessage(list: SegmentList, message: ChatMessage): void {
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
      list.text(typeof given === "string" ? given : spacedJson(given));
      list.marker(CALL_END);
    }
    list.marker(CALLS_END);
  }
  list.marker(END);
}

function contentText(content: ChatMessage["content"]): string {
  if (content === null || content === undefined) return "";
  return typeof content === "string" ? content : content.map((part) => part.text).join("");
}

/** JSON without spaces, the keys of every object in code point order, non-ASCII as it is. */
export function sortedCompactJson(value: unknown): string {
  return writeJson(value, ",", ":", (keys) => keys.sort(compareCodePoints));
}

/** JSON as chat templates write it: `, ` and `: ` between parts, keys as they came. */
function spacedJson(value: unknown): string {
  return writeJson(value, ", ", ": ", (keys) => keys);
}

function writeJson(
  value: unknown,
  comma: string,
  colon: string,
  order: (keys: string[]) => string[],
): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) {
    return `[${value.map((item) => writeJson(item, comma, colon, order)).join(comma)}]`;
  }
  const record = value as Readonly<Record<string, unknown>>;
  const fields = order(Object.keys(record)).map((key) =>
    JSON.stringify(key) + colon + writeJson(record[key], comma, colon, order)
  );
  return `{${fields.join(comma)}}`;
}

/** The order of Python's `sorted`; JavaScript's own compares UTF-16 units. */
function compareCodePoints(a: string, b: string): number {
  const left = Array.from(a, (character) => character.codePointAt(0)!);
  const right = Array.from(b, (character) => character.codePointAt(0)!);
  const shared = Math.min(left.length, right.length);
  for (let i = 0; i < shared; i++) {
    if (left[i] !== right[i]) return left[i]! - right[i]!;
  }
  return left.length - right.length;
}
