/** The layout against the model folder's own template, and against forged markers. */
import { Template } from "@huggingface/jinja";
import { deepEqual, equal, ok } from "node:assert/strict";
import { encodeSegments, encodeText } from "../../runtime/chat/encode.ts";
import {
  type ChatMessage,
  renderChat,
  type Segment,
  sortedCompactJson,
} from "../../runtime/chat/template.ts";
import { withKimiIds } from "../../runtime/chat/tool_calls.ts";
import { TINY_DIRECTORY, tinySpecials, tinyTokenizer } from "../tools/tiny_text.ts";

const template = new Template(Deno.readTextFileSync(`${TINY_DIRECTORY}/chat_template.jinja`));

/** What Kimi's tokenizer does to tools before it renders them. */
function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
  return Object.fromEntries(entries.map(([key, item]) => [key, sortKeys(item)]));
}

/** The reference renderer, given the compact form that its own `tojson` can't be asked for. */
function reference(messages: readonly ChatMessage[], tools: unknown[] | null, prompt: boolean) {
  const marker = "\u{F0000}tools\u{F0000}";
  const text = template.render({
    messages,
    tools: tools === null || tools.length === 0 ? null : marker,
    add_generation_prompt: prompt,
  });
  return text.replace(JSON.stringify(marker), () => JSON.stringify(sortKeys(tools)));
}

const textOf = (segments: readonly Segment[]) => segments.map((segment) => segment.text).join("");

const WEATHER = {
  type: "function",
  function: {
    name: "weather",
    description: 'Météo — 天気 "quoted" </b> \u007f\n',
    parameters: {
      type: "object",
      required: ["city"],
      properties: { "ünit": { type: "string", enum: ["b", "a"] }, city: { type: "string" } },
    },
    strict: true,
  },
};
const CALL = {
  id: "functions.weather:0",
  type: "function",
  function: { name: "weather", arguments: '{"city": "Köln"}' },
};

const CONVERSATIONS: Readonly<Record<string, [readonly ChatMessage[], unknown[] | null]>> = {
  "one user": [[{ role: "user", content: "Hello!" }], null],
  "system and turns": [[
    { role: "system", content: "Be short." },
    { role: "user", content: "Hi\n\n  there  " },
    { role: "assistant", content: "Hello." },
    { role: "user", content: "日本語 🙂 {{ messages }} {% raw %}" },
  ], null],
  "names": [[
    { role: "system", name: "rules", content: "x" },
    { role: "user", name: "Anna", content: "y" },
    { role: "assistant", name: "", content: "z" },
    { role: "critic", content: "another role" },
  ], null],
  "typed parts": [[
    { role: "user", content: [{ type: "text", text: "a " }, { type: "text", text: "b" }] },
    { role: "assistant", content: [] },
    { role: "user", content: "" },
  ], null],
  "tools, calls and results": [[
    { role: "user", content: "Weather in Köln?" },
    { role: "assistant", content: null, tool_calls: [CALL, { ...CALL, id: "functions.x:1" }] },
    { role: "tool", tool_call_id: "functions.weather:0", content: '{"sky": "grey"}' },
    { role: "tool", tool_call_id: "functions.x:1", name: "x", content: "none" },
    { role: "assistant", content: "Grey.", tool_calls: [] },
  ], [WEATHER]],
  "no tools": [[{ role: "user", content: "x" }], []],
  "text with a call": [[{ role: "assistant", content: "Wait.", tool_calls: [CALL] }], null],
};

for (const [name, [messages, tools]] of Object.entries(CONVERSATIONS)) {
  Deno.test(`chat layout equals the folder's template: ${name}`, () => {
    for (const prompt of [true, false]) {
      const wanted = reference(withKimiIds(messages), tools, prompt);
      equal(textOf(renderChat(messages, tools, prompt ? "answer" : "nothing")), wanted);
    }
  });
}

Deno.test("chat layout: a developer message is a system message", () => {
  const content = "Be kind.";
  deepEqual(
    renderChat([{ role: "developer", content }], null),
    renderChat([{ role: "system", content }], null),
  );
});

Deno.test("chat layout: call arguments that are no text become spaced JSON", () => {
  const call = {
    id: "functions.f:0",
    function: { name: "f", arguments: { b: [1, "é"], a: null } },
  };
  const text = textOf(renderChat([{ role: "assistant", tool_calls: [call] }], null));
  ok(text.includes('<|tool_call_argument_begin|>{"b": [1, "é"], "a": null}<|tool_call_end|>'));
});

Deno.test("tool JSON: keys in code point order, number-like and odd keys included", () => {
  const value = JSON.parse(
    '{"b":1,"10":2,"9":3,"__proto__":{"z":[],"a":{}},"\u{10000}":4,"\uffee":5,"":6}',
  );
  equal(
    sortedCompactJson(value),
    '{"":6,"10":2,"9":3,"__proto__":{"a":{},"z":[]},"b":1,"\uffee":5,"\u{10000}":4}',
  );
});

Deno.test("chat layout: the ids of all 680 evaluation prompts are the trainer's", async () => {
  const bytes = Deno.readFileSync(`${TINY_DIRECTORY}/eval.jsonl.gz`);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(stream).text()).trim().split("\n");
  equal(lines.length, 680);
  for (const line of lines) {
    const item = JSON.parse(line);
    const ids = await encodeSegments(tinyTokenizer, renderChat(item.messages, item.tools));
    deepEqual(Array.from(ids), item.prompt_ids, item.task);
  }
});

/** Puts a text in every place of a conversation that a client fills. */
function everywhere(text: string): [ChatMessage[], unknown[]] {
  const roles = ["system", "developer", "user", "assistant", "tool", text];
  const messages = roles.flatMap((role): ChatMessage[] => [
    { role, content: text, name: text, tool_call_id: text },
    { role, content: [{ type: "text", text }, { type: "text", text }] },
    { role, content: text, tool_calls: [{ id: text, function: { name: text, arguments: text } }] },
  ]);
  return [messages, [{ type: "function", function: { name: text, [text]: text } }]];
}

Deno.test("chat layout: no special string in a request becomes a special token", async () => {
  const [first] = tinySpecials;
  const allowed = tinyTokenizer.encode(first!.text, true);
  deepEqual(Array.from(allowed), [first!.id], "the tokenizer does know special strings");
  const counted = async (text: string) => {
    const ids = await encodeSegments(tinyTokenizer, renderChat(...everywhere(text)));
    return ids.filter((id) => id >= tinyTokenizer.rankCount);
  };
  const honest = await counted("plain");
  for (const special of tinySpecials) {
    for (const text of [special.text, `a${special.text}b`, special.text.repeat(2)]) {
      deepEqual(await counted(text), honest, special.text);
    }
  }
});

Deno.test("chat layout: special strings cut over fields and parts stay text", async () => {
  for (const { text } of tinySpecials) {
    for (let at = 1; at < text.length; at++) {
      const parts = [text.slice(0, at), text.slice(at)] as const;
      const messages: ChatMessage[] = [
        { role: "user", content: parts.map((part) => ({ type: "text", text: part })) },
        { role: "tool", tool_call_id: parts[0], content: parts[1] },
      ];
      const ids = await encodeSegments(tinyTokenizer, renderChat(messages, null));
      equal(ids.filter((id) => id >= tinyTokenizer.rankCount).length, 2 * 3 + 2, text);
    }
  }
});

Deno.test("chat layout: foreign call ids become the model's own, in results too", () => {
  const call = (id: string, name: string) => ({ id, function: { name, arguments: "{}" } });
  const messages: ChatMessage[] = [
    { role: "user", content: "go" },
    { role: "assistant", tool_calls: [call("call_a", "f"), call("toolu_b", "g")] },
    { role: "tool", tool_call_id: "toolu_b", content: "2" },
    { role: "tool", tool_call_id: "call_a", content: "1" },
    { role: "assistant", tool_calls: [call("functions.g:7", "g")] },
    { role: "tool", tool_call_id: "functions.g:7", content: "3" },
    { role: "assistant", tool_calls: [call("call_a", "f"), call("functions.f:", "f")] },
    { role: "tool", tool_call_id: "call_a", content: "4" },
    { role: "tool", tool_call_id: "unknown", content: "5" },
  ];
  const text = renderChat(messages, null).map((segment) => segment.text).join("");
  const ids = [...text.matchAll(/functions\.[fg]:\d+|unknown/g)].map(([id]) => id);
  deepEqual(ids, [
    ...["functions.f:0", "functions.g:1", "functions.g:1", "functions.f:0"],
    ...["functions.g:7", "functions.g:7"],
    ...["functions.f:3", "functions.f:4", "functions.f:3", "unknown"],
  ]);
});

Deno.test("encode: a long text gives the ids of encode() and never holds the thread", async () => {
  const text = "The quick brown fox jumps over the lazy dog; 1,234 times. 日本語 ".repeat(20_000);
  let worst = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last);
    last = performance.now();
  }, 1);
  const ids = await encodeText(tinyTokenizer, text);
  clearInterval(timer);
  deepEqual(ids, tinyTokenizer.encode(text));
  console.log(`longest gap between timers: ${worst.toFixed(1)} ms for ${text.length} characters`);
  // A slice is 4 ms; the rest is room for a busy machine.
  ok(worst < 60, `held the thread for ${worst} ms`);
});
