/**
 * A chat template of the operator's own, in Jinja, for models that were tuned to another layout.
 *
 * The template's special strings become special tokens, a request's never: what could be one, or a
 * part of one, is broken by a character of no meaning before it is rendered, which is taken out
 * again afterwards.
 */
import { Template } from "@huggingface/jinja";
import { RequestError, UsageError } from "../errors.ts";
import { isObject, parseJsonObject } from "../json_text.ts";
import { MAX_TEMPLATE_FILE_BYTES } from "../limits.ts";
import { type ChatMessage, contentText, type PromptEnd, type Segment } from "./template.ts";
import { withKimiIds } from "./tool_calls.ts";

/** Unicode's noncharacters: no text means anything by them. */
const NONCHARACTERS = Array.from({ length: 32 }, (_, at) => String.fromCodePoint(0xfdd0 + at));

export class ChatTemplate {
  readonly #template: Template;
  readonly #specials: Specials;

  /** `specials`: the texts of the tokenizer's special tokens. */
  constructor(template: Template, specials: readonly string[]) {
    this.#template = template;
    this.#specials = new Specials(specials);
  }

  /**
   * Renders a conversation as transformers' `apply_chat_template` does, arguments of calls as
   * objects where they are. Throws RequestError for one that the template refuses.
   */
  render(
    messages: readonly ChatMessage[],
    tools: readonly unknown[] | null,
    end: PromptEnd,
  ): Segment[] {
    const [breaker, ending] = this.#unusedIn(JSON.stringify([messages, tools]));
    const guard = new Guard(this.#specials, breaker);
    const turns = withKimiIds(messages).map((message) => turnOf(message, guard));
    const last = turns.at(-1);
    if (end === "rest" && last !== undefined) last.content += ending;
    const text = this.#rendered({
      messages: turns,
      tools: tools !== null && tools.length > 0 ? guard.value(tools) : null,
      add_generation_prompt: end === "answer",
    });
    if (end !== "rest") return this.#segments(text, breaker);
    const at = text.lastIndexOf(ending);
    if (at < 0) {
      throw new RequestError(
        "render chat: wanted a template that shows the last message to its end, found another",
        "continue_final_message",
      );
    }
    return this.#segments(text.slice(0, at), breaker);
  }

  /** Two characters that a conversation does not hold. */
  #unusedIn(text: string): [string, string] {
    const [first, second] = NONCHARACTERS.filter((each) => !text.includes(each));
    if (first !== undefined && second !== undefined) return [first, second];
    throw new RequestError(
      'read field "messages": wanted text, found 31 kinds of noncharacters',
      "messages",
    );
  }

  #rendered(values: Record<string, unknown>): string {
    try {
      return this.#template.render(values);
    } catch (error) {
      throw new RequestError(
        `render chat: wanted messages that the template accepts, found ${lineOf(error)}`,
        "messages",
      );
    }
  }

  #segments(text: string, breaker: string): Segment[] {
    const segments: Segment[] = [];
    const add = (piece: string) => {
      const plain = piece.replaceAll(breaker, "");
      if (plain !== "") segments.push({ text: plain, trusted: false });
    };
    let at = 0;
    for (const { 0: special, index } of text.matchAll(this.#specials.pattern)) {
      add(text.slice(at, index));
      segments.push({ text: special, trusted: true });
      at = index + special.length;
    }
    add(text.slice(at));
    return segments;
  }
}

/** Throws UsageError for a source that is no template. */
export function parseTemplate(source: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    throw new UsageError(`read chat template: wanted a Jinja template, found ${lineOf(error)}`);
  }
}

/** Reads a template file. Throws UsageError for one that can't be read or is too large. */
export function readTemplateFile(path: string): string {
  const refuse = (found: string): never => {
    throw new UsageError(`read chat template "${path}": wanted a text file, found ${found}`);
  };
  try {
    const bytes = Deno.readFileSync(path);
    if (bytes.length > MAX_TEMPLATE_FILE_BYTES) return refuse(`${bytes.length} bytes`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    return refuse(lineOf(error));
  }
}

/** A message with the fields that templates read. */
interface Turn {
  readonly role: string;
  content: string;
  readonly name?: string;
  readonly tool_calls?: unknown;
  readonly tool_call_id?: string;
}

function turnOf(message: ChatMessage, guard: Guard): Turn {
  const { role, content, name, tool_calls: calls, tool_call_id: callId } = message;
  return {
    role: role === "developer" ? "system" : role,
    content: guard.text(contentText(content)),
    ...(name && { name: guard.text(name) }),
    ...(calls && calls.length > 0 && {
      tool_calls: calls.map((call) => ({
        id: guard.text(call.id),
        type: "function",
        function: {
          name: guard.text(call.function.name),
          arguments: guard.value(argumentsOf(call.function.arguments)),
        },
      })),
    }),
    ...(callId && { tool_call_id: guard.text(callId) }),
  };
}

/** Templates write calls with `tojson`: a text of JSON would get quotes around it. */
function argumentsOf(value: unknown): unknown {
  if (typeof value !== "string") return value;
  try {
    return parseJsonObject(new TextEncoder().encode(value), "read arguments");
  } catch {
    return value;
  }
}

/** The special strings of a tokenizer, and how a request's text is told from them. */
class Specials {
  readonly pattern: RegExp;
  readonly #beginnings = new Set<string>();
  readonly #ends = new Set<string>();
  readonly #longest: number;

  constructor(texts: readonly string[]) {
    const longestFirst = texts.toSorted((a, b) => b.length - a.length);
    this.pattern = new RegExp(longestFirst.map(escaped).join("|"), "g");
    this.#longest = longestFirst[0]!.length;
    for (const text of texts) {
      for (let length = 1; length < text.length; length++) {
        this.#beginnings.add(text.slice(0, length));
        this.#ends.add(text.slice(-length));
      }
    }
  }

  /**
   * The text with `breaker` in each special string, and at an end that its neighbours in a prompt
   * could complete to one.
   */
  broken(text: string, breaker: string): string {
    const whole = text.replace(this.pattern, (found) => found[0] + breaker + found.slice(1));
    let begins = false, ends = false;
    for (let length = 1; length <= Math.min(this.#longest, whole.length); length++) {
      begins ||= this.#ends.has(whole.slice(0, length));
      ends ||= this.#beginnings.has(whole.slice(-length));
    }
    return (begins ? breaker : "") + whole + (ends ? breaker : "");
  }
}

/** The texts of one request, broken. */
class Guard {
  constructor(private readonly specials: Specials, private readonly breaker: string) {}

  text(text: string): string {
    return this.specials.broken(text, this.breaker);
  }

  value(value: unknown): unknown {
    if (typeof value === "string") return this.text(value);
    if (Array.isArray(value)) return value.map((each) => this.value(each));
    if (!isObject(value)) return value;
    const entries = Object.entries(value).map(([key, each]) => [this.text(key), this.value(each)]);
    return Object.fromEntries(entries);
  }
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

function lineOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}
