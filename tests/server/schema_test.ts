/** Every field at, over and under its bounds; refusals name the field and quote nothing. */
import { deepEqual, equal, ok } from "node:assert/strict";
import * as limits from "../../runtime/limits.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";

const engine = new FakeEngine({ output: "a" }, 65_536);
const app = appOver(engine);
const messages = [{ role: "user", content: "x" }];
const BASE = {
  "/v1/chat/completions": { messages },
  "/v1/completions": { prompt: "x" },
} as const;
type Path = keyof typeof BASE;
const PATHS = Object.keys(BASE) as Path[];

async function expectStatus(path: Path, fields: object, status: number, param?: string) {
  const response = await post(app, path, { ...BASE[path], ...fields });
  const text = await response.text();
  equal(response.status, status, `${JSON.stringify(fields).slice(0, 200)}: ${text}`);
  if (status === 200) return;
  const { error } = JSON.parse(text);
  equal(error.type, "invalid_request_error");
  ok(error.message.includes(`"${error.param}": wanted `), error.message);
  ok(error.message.includes(", found "), error.message);
  equal(text.includes("canary"), false, "a refusal quotes the request");
  if (param !== undefined) equal(error.param, param);
}

const BOTH_NUMBERS: Readonly<Record<string, [least: number, most: number]>> = {
  max_tokens: [0, limits.MAX_COMPLETION_TOKENS],
  min_tokens: [0, limits.MAX_COMPLETION_TOKENS],
  temperature: [0, limits.MAX_TEMPERATURE],
  top_p: [0, 1],
  top_k: [-1, limits.MAX_TOP_K_TOKENS],
  min_p: [0, 1],
  typical_p: [0, 1],
  typical: [0, 1],
  frequency_penalty: [-limits.MAX_PENALTY, limits.MAX_PENALTY],
  presence_penalty: [-limits.MAX_PENALTY, limits.MAX_PENALTY],
  repetition_penalty: [limits.MIN_REPETITION_PENALTY, limits.MAX_REPETITION_PENALTY],
  repeat_penalty: [limits.MIN_REPETITION_PENALTY, limits.MAX_REPETITION_PENALTY],
  seed: [-1, Number.MAX_SAFE_INTEGER],
  n: [1, limits.MAX_CHOICES],
};
const NUMBERS = {
  "/v1/chat/completions": {
    ...BOTH_NUMBERS,
    max_completion_tokens: [0, limits.MAX_COMPLETION_TOKENS],
    top_logprobs: [0, limits.MAX_LOGPROBS],
  },
  "/v1/completions": { ...BOTH_NUMBERS, logprobs: [0, limits.MAX_LOGPROBS] },
} as const;
const FRACTIONS = new Set([
  "temperature",
  "top_p",
  "min_p",
  "typical_p",
  "typical",
  "frequency_penalty",
  "presence_penalty",
  "repetition_penalty",
  "repeat_penalty",
]);

for (const path of PATHS) {
  for (const [name, [least, most]] of Object.entries(NUMBERS[path])) {
    Deno.test(`${path}: ${name} from ${least} to ${most}`, async () => {
      const base = name === "top_logprobs" ? { logprobs: true } : {};
      const ask = (value: unknown, status: number) =>
        expectStatus(path, { ...base, [name]: value }, status, status === 400 ? name : undefined);
      for (const value of [least, most, null]) await ask(value, 200);
      // Above the largest safe integer, the next number is two away.
      for (const value of [most + 2, most + 1, least - 1, 1e308, -1e308]) await ask(value, 400);
      for (const value of ["1", "canary", true, [], [1], {}]) await ask(value, 400);
      await ask(FRACTIONS.has(name) ? most + 1e-9 : least + 0.5, 400);
    });
  }
}

Deno.test("schema: numbers JSON can't hold, and those that overflow", async () => {
  for (const path of PATHS) {
    for (const text of ["1e999", "-1e999"]) {
      const body = JSON.stringify({ ...BASE[path], temperature: 0 }).replace(
        '"temperature":0',
        `"temperature":${text}`,
      );
      equal((await post(app, path, body)).status, 400);
    }
  }
});

const BAD_BOTH: readonly [field: string, value: unknown, param?: string][] = [
  ["stream", "true"],
  ["stream", 1],
  ["stream_options", true],
  ["stream_options", { include_usage: "yes" }, "stream_options.include_usage"],
  ["model", 7],
  ["stop", ""],
  ["stop", 7],
  ["stop", {}],
  ["stop", ["a", ""], "stop[1]"],
  ["stop", ["a", null], "stop[1]"],
  ["stop", "x".repeat(limits.MAX_STOP_CHARACTERS + 1)],
  ["stop", Array(limits.MAX_STOPS + 1).fill("x")],
  ["stop", "\ud83d"],
  ["response_format", "canary"],
  ["response_format", { type: "canary" }, "response_format.type"],
  ["response_format", { type: "json_schema" }, "response_format.json_schema"],
  ["response_format", { type: "json_object", schema: 7 }, "response_format.schema"],
  ["json_schema", "canary"],
  ["json_schema", { description: "x".repeat(limits.MAX_SCHEMA_CHARACTERS) }],
  ["structured_outputs", "canary"],
  ["structured_outputs", { regex: "" }, "structured_outputs.regex"],
  ["structured_outputs", { regex: "(".repeat(101) }, "structured_outputs.regex"],
  ["structured_outputs", { choice: [] }, "structured_outputs.choice"],
  ["structured_outputs", { choice: [""] }, "structured_outputs.choice[0]"],
  ["structured_outputs", { regex: "a", choice: ["b"] }, "response_format"],
  ["logit_bias", "canary"],
  ["logit_bias", { canary: 1 }],
  ["logit_bias", { "-1": 1 }],
  ["logit_bias", { 5: 100.1 }, "logit_bias.5"],
  ["logit_bias", { 5: "1" }, "logit_bias.5"],
  ["logit_bias", { 4294967295: 1 }],
  ["logit_bias", [5, 1], "logit_bias[0]"],
  ["logit_bias", [[5, true]], "logit_bias[0]"],
  ["logit_bias", [[5.5, 1]], "logit_bias[0]"],
  ["logit_bias", { 4096: 1 }],
  ["logit_bias", { 5: 1e308 }, "logit_bias.5"],
  ["logit_bias", { 5: -100.5 }, "logit_bias.5"],
  ["logit_bias", { 5: null }, "logit_bias.5"],
  ["logit_bias", { 5: false }, "logit_bias.5"],
  ["logit_bias", [["canary", 1]], "logit_bias[0]"],
  ["logit_bias", [[5, 1], [4096, 1]]],
  ["logit_bias", [[5, 1, 2]], "logit_bias[0]"],
  ["logit_bias", Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1]))],
  ["logit_bias", Array(limits.MAX_LOGIT_BIASES + 1).fill([5, 1])],
  ["return_progress", 1],
  ["ignore_eos", 1],
  ["stop_token_ids", 5],
  ["stop_token_ids", ["canary"], "stop_token_ids[0]"],
  ["stop_token_ids", [5, -1], "stop_token_ids[1]"],
  ["stop_token_ids", [2 ** 20]],
  ["stop_token_ids", Array(limits.MAX_STOP_TOKEN_IDS + 1).fill(5)],
  ["grammar", "root ::= canary"],
];
const BAD: Readonly<Record<Path, typeof BAD_BOTH>> = {
  "/v1/chat/completions": [
    ["logprobs", 1],
    ["top_logprobs", 1],
    ["functions", [{ name: "canary" }]],
    ["function_call", "auto"],
    ["chat_template", "canary"],
    ["tool_choice", "required"],
    ["tool_choice", "canary"],
    ["tool_choice", { type: "function", function: { name: "canary" } }],
    ["tools", {}],
    ["tools", ["canary"], "tools[0]"],
    ["tools", [{ type: "canary" }], "tools[0].type"],
    ["tools", [{ type: "function" }], "tools[0].function"],
    ["tools", [{ type: "function", function: { name: "" } }], "tools[0].function.name"],
    [
      "tools",
      [{ type: "function", function: { name: "f", parameters: [] } }],
      "tools[0].function.parameters",
    ],
    ["messages", []],
    ["messages", "canary"],
    ["messages", null],
    ["messages", [7], "messages[0]"],
    ["messages", [{ content: "canary" }], "messages[0].role"],
    ["messages", [{ role: "canary", content: "" }], "messages[0].role"],
    ["messages", [{ role: "user" }], "messages[0].content"],
    ["messages", [{ role: "user", content: null }], "messages[0].content"],
    ["messages", [{ role: "user", content: 5 }], "messages[0].content"],
    ["messages", [...messages, { role: "user", content: ["canary"] }], "messages[1].content[0]"],
    [
      "messages",
      [{ role: "user", content: [{ type: "text", text: "a" }, { type: "image_url" }] }],
      "messages[0].content[1].type",
    ],
    ["messages", [{ role: "user", content: [{ type: "text" }] }], "messages[0].content[0].text"],
    ["messages", [{ role: "tool", content: "x" }], "messages[0].tool_call_id"],
    [
      "messages",
      [{ role: "assistant", tool_calls: [{ id: "a" }] }],
      "messages[0].tool_calls[0].function",
    ],
    [
      "messages",
      [{
        role: "user",
        content: "x",
        tool_calls: [{ id: "a", function: { name: "f", arguments: "" } }],
      }],
      "messages[0].tool_calls",
    ],
    [
      "messages",
      [{ role: "assistant", tool_calls: [{ id: "a", function: { name: "f", arguments: 5 } }] }],
      "messages[0].tool_calls[0].function.arguments",
    ],
    [
      "messages",
      [{ role: "user", content: "x", name: "n".repeat(limits.MAX_NAME_CHARACTERS + 1) }],
      "messages[0].name",
    ],
  ],
  "/v1/completions": [
    ["echo", 1],
    ["best_of", 2],
    ["prompt", []],
    ["suffix", "canary"],
    ["logprobs", true],
  ],
};

for (const path of PATHS) {
  Deno.test(`${path}: values that can't be honoured are refused by name`, async () => {
    const before = engine.requests.length;
    for (const [field, value, param] of [...BAD_BOTH, ...BAD[path]]) {
      await expectStatus(path, { [field]: value }, 400, param ?? field);
    }
    equal(engine.requests.length, before, "a refused request reached the engine");
  });

  Deno.test(`${path}: fields that ask for nothing, and unknown ones, are accepted`, async () => {
    for (
      const fields of [
        { response_format: { type: "text" }, logit_bias: {}, presence_penalty: 0 },
        { frequency_penalty: 0, repetition_penalty: 1, grammar: null, user: "u", best_of: 1 },
        { stop: null, stream_options: null, tools: null, functions: null, suffix: "" },
        { logit_bias: { 5: 1, 7: -100 }, repetition_penalty: 1.1, repeat_penalty: 1.1 },
        { logit_bias: [[5, 0.5], [6, false]], presence_penalty: 0.5, frequency_penalty: -1 },
        { stop: [], stream: false, n: 1, canary: { a: [1] }, "__proto__x": 1 },
        { stop: Array(limits.MAX_STOPS).fill("x".repeat(limits.MAX_STOP_CHARACTERS)) },
      ]
    ) await expectStatus(path, fields, 200);
  });
}

Deno.test("schema: fields of the prototype are no fields of the request", async () => {
  for (const path of PATHS) {
    const body = `{"__proto__":{"stream":true,"n":5},"constructor":{"prototype":1},` +
      JSON.stringify(BASE[path]).slice(1);
    const response = await post(app, path, body);
    equal(response.status, 200);
    equal((await response.json()).choices.length, 1);
  }
  equal(({} as Record<string, unknown>)["stream"], undefined);
});

Deno.test("schema: two names of one field must agree", async () => {
  const names = [["repetition_penalty", "repeat_penalty"], ["typical_p", "typical"]] as const;
  for (const path of PATHS) {
    for (const [name, alias] of names) {
      await expectStatus(path, { [name]: 0.5, [alias]: 0.5 }, 200);
      await expectStatus(path, { [name]: 0.5, [alias]: null }, 200);
      await expectStatus(path, { [name]: 0.5, [alias]: 0.25 }, 400, alias);
    }
  }
});

Deno.test("schema: each name and form of penalties and biases reaches the engine", async () => {
  const biases = Object.fromEntries(Array.from({ length: 1024 }, (_, id) => [id + 3072, -100]));
  const cases: [fields: object, sampling: object][] = [
    [{}, { typicalP: 1, repetitionPenalty: 1, frequencyPenalty: 0, logitBias: [] }],
    [{ repetition_penalty: 1.5 }, { repetitionPenalty: 1.5 }],
    [{ repeat_penalty: 0.5 }, { repetitionPenalty: 0.5 }],
    [{ typical_p: 0.5 }, { typicalP: 0.5 }],
    [{ typical: 0.25 }, { typicalP: 0.25 }],
    [{ frequency_penalty: -2, presence_penalty: 2 }, { frequencyPenalty: -2, presencePenalty: 2 }],
    [{ logit_bias: { 4095: 100, 0: -0.5 } }, { logitBias: [[0, -0.5], [4095, 100]] }],
    [{ logit_bias: [[7, 1], [4095, false], [7, 2]] }, { logitBias: [[7, 2], [4095, -100]] }],
    [{ logit_bias: biases }, { logitBias: Object.entries(biases).map(([id, b]) => [+id, b]) }],
    [{ logit_bias: null }, { logitBias: [] }],
  ];
  for (const path of PATHS) {
    for (const [fields, wanted] of cases) {
      await expectStatus(path, fields, 200);
      const { sampling } = engine.requests.at(-1)!;
      for (const [name, value] of Object.entries(wanted)) {
        deepEqual(sampling[name as keyof typeof sampling], value, JSON.stringify(fields));
      }
    }
  }
});

Deno.test("schema: a tool's objects have a bound on their keys", async () => {
  const toolOf = (keys: number) => {
    const parameters = Object.fromEntries(Array.from({ length: keys }, (_, key) => [`k${key}`, 1]));
    return [{ type: "function", function: { name: "f", parameters } }];
  };
  await expectStatus("/v1/chat/completions", { tools: toolOf(limits.MAX_TOOL_KEYS) }, 200);
  const tools = toolOf(limits.MAX_TOOL_KEYS + 1);
  await expectStatus("/v1/chat/completions", { tools }, 400, "tools");
});

Deno.test("schema: a body's fields are bounded in number", async () => {
  const colons = { user: '":"'.repeat(limits.MAX_BODY_FIELDS) };
  const sound = JSON.stringify({ ...BASE["/v1/completions"], ...colons });
  const own = 2;
  for (const [more, status] of [[0, 200], [1, 400]] as const) {
    const count = limits.MAX_BODY_FIELDS - own - 1 + more;
    const fields = Array.from({ length: count }, (_, at) => `"k${at}":0`).join();
    const response = await post(app, "/v1/completions", `${sound.slice(0, -1)},"x":{${fields}}}`);
    equal(response.status, status);
    const text = await response.text();
    if (status === 400) ok(JSON.parse(text).error.message.includes("fields, found more"));
  }
});
