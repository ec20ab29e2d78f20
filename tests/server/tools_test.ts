/** Tool calls through the chat route: fields, answers, streams, the client's tool runner. */
import { deepEqual, equal, ok } from "node:assert/strict";
import OpenAI from "openai";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { BANNED } from "../../runtime/engine/penalties.ts";
import { callIds, encodeIds, markerId } from "../tools/tiny_calls.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, eventsOf, FakeEngine, post, type Script, withServer } from "./fake_engine.ts";

const PATH = "/v1/chat/completions";
const messages = [{ role: "user" as const, content: "Time in Oslo?" }];
const tools = ["get_time", "get_weather"].map((name) => ({
  type: "function" as const,
  function: { name, parameters: { type: "object", properties: { city: { type: "string" } } } },
}));
const [CALLS, CALLS_END] = [
  markerId("tool_calls_section_begin"),
  markerId("tool_calls_section_end"),
];
const [CALL, CALL_END] = [markerId("tool_call_begin"), markerId("tool_call_end")];
const TIME = callIds("functions.get_time:0", '{"city": "Oslo"}');
const WEATHER = callIds("functions.get_weather:1", "{}");
const OUTPUT = [...encodeIds("Wait."), CALLS, ...TIME, ...WEATHER, CALLS_END];
const CALLS_WANTED = [
  {
    id: "functions.get_time:0",
    type: "function",
    function: { name: "get_time", arguments: '{"city": "Oslo"}' },
  },
  {
    id: "functions.get_weather:1",
    type: "function",
    function: { name: "get_weather", arguments: "{}" },
  },
];

async function ask(script: Script, fields: object = {}) {
  const engine = new FakeEngine(script);
  const response = await post(appOver(engine), PATH, { messages, tools, ...fields });
  equal(response.status, 200);
  return { engine, response };
}

Deno.test("tools: a whole answer has the calls, its text, and the reason", async () => {
  const { response } = await ask({ output: OUTPUT });
  const [choice] = (await response.json()).choices;
  deepEqual(choice.message, {
    role: "assistant",
    content: "Wait.",
    refusal: null,
    tool_calls: CALLS_WANTED,
  });
  equal(choice.finish_reason, "tool_calls");
});

Deno.test("tools: a call without a word has null as its content", async () => {
  const { response } = await ask({ output: [CALLS, ...TIME, CALLS_END] });
  const [{ message }] = (await response.json()).choices;
  equal(message.content, null);
  deepEqual(message.tool_calls, CALLS_WANTED.slice(0, 1));
});

Deno.test("tools: a stream has each call's head once, then its arguments", async () => {
  const { response } = await ask({ output: OUTPUT }, { stream: true, logprobs: true });
  const events = await eventsOf(response);
  equal(events.pop(), "[DONE]");
  equal(events.at(-1).choices[0].finish_reason, "tool_calls");
  const deltas = events.map((event) => event.choices[0].delta);
  equal(deltas.map(({ content }) => content ?? "").join(""), "Wait.");
  const parts = deltas.flatMap((delta) => delta.tool_calls ?? []);
  for (const [index, wanted] of CALLS_WANTED.entries()) {
    const [head, ...rest] = parts.filter((part) => part.index === index);
    deepEqual(head, { index, ...wanted, function: { ...wanted.function, arguments: "" } });
    ok(rest.every((part) => part.id === undefined && part.function.name === undefined));
    equal(rest.map((part) => part.function.arguments).join(""), wanted.function.arguments);
  }
  ok(parts.length > 6, "arguments come in fragments");
  const logprobs = events.flatMap((event) => event.choices[0].logprobs?.content ?? []);
  equal(logprobs.length, OUTPUT.length, "each token is listed once");
});

Deno.test("tools: a call that the limit cut is not one to carry out", async () => {
  const { response } = await ask({ output: OUTPUT }, { max_tokens: OUTPUT.length - 4 });
  equal((await response.json()).choices[0].finish_reason, "length");
});

Deno.test("tools: without tools in the request markers stay text", async () => {
  const { response } = await ask({ output: [CALLS, ...TIME, CALLS_END] }, { tools: [] });
  const [choice] = (await response.json()).choices;
  ok(choice.message.content.startsWith("<|tool_calls_section_begin|>"));
  equal(choice.message.tool_calls, undefined);
  equal(choice.finish_reason, "stop");
});

Deno.test("tools: tool_choice none bans the markers, whatever biases say", async () => {
  const { engine } = await ask({}, {
    tool_choice: "none",
    logit_bias: { [CALLS]: 100, "50": 3 },
  });
  const biases = new Map(engine.requests[0]!.sampling.logitBias);
  deepEqual([biases.get(CALLS), biases.get(CALL), biases.get(50)], [BANNED, BANNED, 3]);
  equal(engine.requests[0]!.sampling.logitBias.length, 3);
});

Deno.test("tools: parallel_tool_calls false ends the answer after its first call", async () => {
  const { engine, response } = await ask({ output: OUTPUT }, { parallel_tool_calls: false });
  deepEqual(engine.requests[0]!.stopIds, [...tinyGeneration.eosIds, CALL_END]);
  const [choice] = (await response.json()).choices;
  deepEqual(choice.message.tool_calls, CALLS_WANTED.slice(0, 1));
  equal(choice.finish_reason, "tool_calls");
});

Deno.test("tools: the openai client's runner calls the functions and gets an answer", async () => {
  const script = ({ promptIds }: GenerateRequest) => {
    const prompt = tinyTokenizer.decode(promptIds);
    return {
      output: prompt.includes("## Return of functions.get_time:0\n12:00") ? "Noon." : OUTPUT,
    };
  };
  await withServer(script, async (url) => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    for (const stream of [false, true]) {
      const cities: unknown[] = [];
      const run = {
        model: "kedge-tiny",
        messages,
        tools: tools.map(({ type, function: { name, parameters } }) => ({
          type,
          function: {
            name,
            description: name,
            parameters,
            parse: JSON.parse,
            function: (args: { city?: string }) => {
              cities.push(args.city);
              return name === "get_time" ? "12:00" : "rain";
            },
          },
        })),
      };
      const runner = stream
        ? client.chat.completions.runTools({ ...run, stream: true })
        : client.chat.completions.runTools(run);
      equal(await runner.finalContent(), "Noon.");
      deepEqual(cities, ["Oslo", undefined]);
    }
  });
});

Deno.test("tools: a required or named call is a grammar of the tools' schemas", async () => {
  const named = { type: "function", function: { name: "get_time" } };
  const sourceOf = async (fields: object) => {
    const { engine } = await ask({ output: OUTPUT }, fields);
    const { grammar } = engine.requests[0]!;
    equal(grammar!.kind, "lark");
    return grammar!.source;
  };
  const all = await sourceOf({ tool_choice: "required" });
  ok(all.includes('"functions.get_time:"') && all.includes('"functions.get_weather:"'));
  ok(all.startsWith("start: <|tool_calls_section_begin|> call+ <|tool_calls_section_end|>"));
  const one = await sourceOf({ tool_choice: named, parallel_tool_calls: false });
  ok(one.includes('"functions.get_time:"') && !one.includes("get_weather"));
  ok(one.startsWith("start: <|tool_calls_section_begin|> call <|tool_calls_section_end|>"));
  const app = appOver(new FakeEngine());
  const refused: object[] = [
    { tool_choice: "required", tools: [] },
    { tool_choice: { ...named, function: { name: "unknown" } } },
    { tool_choice: named, response_format: { type: "json_object" } },
  ];
  for (const fields of refused) {
    const response = await post(app, PATH, { messages, tools, ...fields });
    equal(response.status, 400);
    equal((await response.json()).error.param, "tool_choice");
  }
});

Deno.test("tools: strict tools hold a call that begins, in every dialect", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } } };
  const strict = { name: "get_time", parameters, strict: true };
  const chat = [{ type: "function", function: strict }, ...tools.slice(1)];
  const input_schema = parameters;
  const bodies: [string, object][] = [
    [PATH, { messages, tools: chat }],
    ["/v1/responses", { input: "x", tools: [{ type: "function", ...strict }] }],
    ["/v1/messages", {
      messages,
      max_tokens: 9,
      tools: [{ name: "get_time", input_schema, strict: true }],
    }],
  ];
  for (const [path, body] of bodies) {
    const engine = new FakeEngine({ output: "Noon." });
    const response = await post(appOver(engine), path, body);
    equal(response.status, 200, await response.text());
    const { source, startIds } = engine.requests[0]!.grammar!;
    deepEqual(startIds, [CALLS, CALL], path);
    ok(source.startsWith("start: <|tool_calls_section_begin|> call+ "), source);
    ok(source.includes("<|tool_calls_section_end|> | call+\n"), source);
    ok(source.includes('"city"'), source);
  }
  const { engine } = await ask({}, { tools: chat, parallel_tool_calls: false });
  const { source } = engine.requests[0]!.grammar!;
  ok(source.includes('arguments1: %json {"type":"object"'), "what is not strict is any object");
  ok(source.startsWith("start: <|tool_calls_section_begin|> call <"));
  const form = await ask({}, { tools: chat, response_format: { type: "json_object" } });
  equal(form.engine.requests[0]!.grammar!.kind, "json_schema");
  const free = await ask({}, { tools: [{ ...chat[0], function: { ...strict, strict: false } }] });
  equal(free.engine.requests[0]!.grammar, null);
});
