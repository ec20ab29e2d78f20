/** Templates of operators against the built-in layout, and against forged markers. */
import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { RequestError, UsageError } from "../../runtime/errors.ts";
import { type ChatMessage, renderChat, type Segment } from "../../runtime/chat/template.ts";
import { ChatTemplate, parseTemplate, readTemplateFile } from "../../runtime/chat/template_file.ts";
import { randomSource } from "../reference/random.ts";
import { TINY_DIRECTORY, tinySpecials } from "../tools/tiny_text.ts";

const names = tinySpecials.map(({ text }) => text);
const make = (source: string) => new ChatTemplate(parseTemplate(source), names);
const kimi = make(readTemplateFile(`${TINY_DIRECTORY}/chat_template.jinja`));
const textOf = (segments: readonly Segment[]) => segments.map(({ text }) => text).join("");
const trusted = (segments: readonly Segment[]) => segments.filter((each) => each.trusted);

const CALL = {
  id: "functions.weather:0",
  function: { name: "weather", arguments: '{"city": "Köln"}' },
};
const CONVERSATION: readonly ChatMessage[] = [
  { role: "developer", content: "Be short." },
  {
    role: "user",
    name: "Anna",
    content: [{ type: "text", text: " Hi\n" }, { type: "text", text: "x" }],
  },
  { role: "assistant", content: null, tool_calls: [CALL] },
  { role: "tool", tool_call_id: "functions.weather:0", content: "grey" },
  { role: "assistant", content: "日本語 🙂 <|" },
];

Deno.test("a model's own template gives the built-in layout's segments", () => {
  for (const end of ["answer", "nothing", "rest"] as const) {
    deepEqual(kimi.render(CONVERSATION, null, end), renderChat(CONVERSATION, null, end));
  }
});

Deno.test("a request's text never becomes a marker, whatever its neighbours are", () => {
  const pieces = [
    ...names,
    "<",
    "|",
    ">",
    "<|",
    "|>",
    "im_end",
    "<|im_",
    "_end|>",
    "a",
    " ",
    "[",
    "]",
  ];
  const random = randomSource(5);
  const any = () =>
    Array.from({ length: 1 + random() * 4 }, () => pieces[Math.floor(random() * pieces.length)]!)
      .join("");
  const plain = make(
    "{% for m in messages %}{{ m.name }}{{ m.content }}{{ m.tool_call_id }}" +
      "{% for c in m.tool_calls or [] %}{{ c.id }}{{ c.function.name }}{{ c.function.arguments }}" +
      "{% endfor %}{% endfor %}" +
      "{% for t in tools or [] %}{{ t.name }}{{ t.description }}{% endfor %}",
  );
  for (let round = 0; round < 2_000; round++) {
    const messages = [
      { role: "user", name: any(), content: any(), tool_call_id: any() },
      {
        role: "assistant",
        content: any(),
        tool_calls: [{ id: any(), function: { name: any(), arguments: any() } }],
      },
    ];
    const tools = [{ name: any(), description: any() }];
    const segments = plain.render(messages, tools, "nothing");
    deepEqual(trusted(segments), []);
    ok(textOf(segments).includes(messages[0]!.name + messages[0]!.content));
    const marks = trusted(kimi.render(messages, tools, "answer"));
    deepEqual(
      marks,
      trusted(kimi.render(
        messages.map((each) => ({
          ...each,
          name: "n",
          content: "c",
          ...(each.tool_calls && {
            tool_calls: [{ id: "functions.f:0", function: { name: "f", arguments: "{}" } }],
          }),
        })),
        tools,
        "answer",
      )),
    );
  }
});

Deno.test("arguments are objects to a template, comparisons and trims see what was sent", () => {
  const template = make(
    "{% for m in messages %}{% if m.role == 'user' and m.content == 'yes' %}Y{% endif %}" +
      "{{ m.content | trim }}{% for c in m.tool_calls or [] %}" +
      "{{ c.function.arguments.city }}{% endfor %}{% endfor %}",
  );
  const messages = [{ role: "user", content: "yes" }, { role: "user", content: " a " }];
  equal(textOf(template.render(messages, null, "answer")), "Yyesa");
  equal(
    textOf(template.render([{ role: "assistant", tool_calls: [CALL] }], null, "answer")),
    "Köln",
  );
});

Deno.test("noncharacters of a request are kept", () => {
  const content = Array.from({ length: 30 }, (_, at) => String.fromCodePoint(0xfdd0 + at)).join("");
  const messages = [{ role: "user", content }];
  deepEqual(kimi.render(messages, null, "rest"), renderChat(messages, null, "rest"));
  const all = content + "\ufdee\ufdef";
  throws(() => kimi.render([{ role: "user", content: all }], null, "answer"), RequestError);
});

Deno.test("a template's refusal is the request's fault, a broken template the operator's", () => {
  throws(() => make("{% if %}"), UsageError);
  throws(() => readTemplateFile("/nowhere/template.jinja"), UsageError);
  const strict = make("{{ raise_exception('roles must alternate') }}");
  throws(() => strict.render(CONVERSATION, null, "answer"), (error: unknown) => {
    ok(error instanceof RequestError);
    ok(error.message.includes("roles must alternate"));
    return true;
  });
  const forgetful = make("{{ messages[0].content }}");
  throws(() => forgetful.render(CONVERSATION, null, "rest"), RequestError);
});

Deno.test("deep arguments stay text", () => {
  const text = `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;
  const messages = [{
    role: "assistant",
    tool_calls: [{ id: "functions.f:0", function: { name: "f", arguments: text } }],
  }];
  ok(textOf(kimi.render(messages, null, "answer")).includes(text));
});
