/** Ollama's own client against the app on a real port, and what it does not show. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { Ollama } from "ollama";
import { EngineError } from "../../runtime/errors.ts";
import { callIds, encodeIds } from "../tools/tiny_calls.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, FakeEngine, post, type Script, withServer } from "./fake_engine.ts";

const model = "kedge-tiny";
const messages = [{ role: "user", content: "Hello!" }];

const withClient = (
  script: Script,
  test: (client: Ollama, engine: FakeEngine) => Promise<void>,
) => withServer(script, (host, engine) => test(new Ollama({ host }), engine));

Deno.test("ollama client: chat, whole", () =>
  withClient({ output: "Hi 🙂" }, async (client, engine) => {
    const answer = await client.chat({
      model: "kedge-tiny:latest",
      messages: [{ role: "system", content: "Be brief." }, ...messages],
      options: { temperature: 0.5, num_predict: 9, repeat_penalty: 1.5, stop: ["STOP"], seed: 4 },
    });
    deepEqual(answer.message, { role: "assistant", content: "Hi 🙂" });
    equal(answer.done_reason, "stop");
    equal(answer.prompt_eval_count, engine.requests[0]!.promptIds.length);
    equal(answer.eval_duration, 40_000_000);
    ok(answer.total_duration > 0);
    const { sampling, maxTokens } = engine.requests[0]!;
    deepEqual([sampling.temperature, sampling.repetitionPenalty, sampling.seed, maxTokens], [
      0.5,
      1.5,
      4,
      9,
    ]);
  }));

Deno.test("ollama client: chat as a stream", () =>
  withClient({ output: "Hi 🙂 there" }, async (client) => {
    let text = "";
    let ends = 0;
    for await (const part of await client.chat({ model, messages, stream: true })) {
      text += part.message.content;
      equal(ends, 0, "a line after the end");
      if (part.done) ends++;
    }
    equal(text, "Hi 🙂 there");
    equal(ends, 1);
  }));

Deno.test("ollama client: generate, with the layout and raw", () =>
  withClient({ output: "four" }, async (client, engine) => {
    const prompt = "Two and two?";
    const answer = await client.generate({ model, prompt, system: "Be brief." });
    equal(answer.response, "four");
    await client.generate({ model, prompt, raw: true });
    ok(engine.requests[0]!.promptIds.length > engine.requests[1]!.promptIds.length + 4);
    let text = "";
    for await (const part of await client.generate({ model, prompt, stream: true })) {
      text += part.response;
    }
    equal(text, "four");
  }));

Deno.test("ollama client: tags, ps, show, version, load", () =>
  withClient({}, async (client, engine) => {
    const { models } = await client.list();
    deepEqual(models.map(({ name }) => name), ["kedge-tiny:latest"]);
    equal((await client.ps()).models.length, 1);
    deepEqual((await client.show({ model })).capabilities, ["completion", "tools"]);
    match((await client.version()).version, /^\d+\.\d+\.\d+$/);
    const load = await client.generate({ model, prompt: "" });
    deepEqual([load.response, load.done, load.done_reason], ["", true, "load"]);
    equal(engine.requests.length, 0);
  }));

Deno.test("ollama client: errors reach it as text", () =>
  withClient({ error: { at: 1, value: new EngineError("it broke") } }, async (client) => {
    await rejects(client.chat({ model: "canary", messages }), /find model/);
    await rejects(client.chat({ model, messages, format: "xml" }), /"format": wanted "json"/);
    await rejects(client.show({ model: "canary" }), /find model/);
    await rejects(client.chat({ model, messages }), /it broke/);
    await rejects(async () => {
      for await (const _ of await client.chat({ model, messages, stream: true }));
    }, /it broke/);
  }));

const tools = [{
  type: "function",
  function: { name: "sum", description: "", parameters: { type: "object" } },
}];

Deno.test("ollama: calls and results of tools are part of the conversation", async () => {
  const engine = new FakeEngine();
  const call = (name: string) => ({ function: { name, arguments: { a: 1 } } });
  const response = await post(appOver(engine), "/api/chat", {
    model,
    stream: false,
    tools,
    messages: [
      ...messages,
      { role: "assistant", content: "", tool_calls: [call("sum"), call("other"), call("sum")] },
      { role: "tool", content: "1", tool_name: "other" },
      { role: "tool", content: "2", tool_name: "sum" },
      { role: "tool", content: "3" },
      { role: "tool", content: "4", tool_name: "nobody" },
    ],
  });
  equal(response.status, 200);
  const prompt = tinyTokenizer.decode(engine.requests[0]!.promptIds);
  deepEqual([...prompt.matchAll(/Return of (.*)\n(\d)/g)].map(([, id, text]) => [id, text]), [
    ["functions.other:1", "1"],
    ["functions.sum:0", "2"],
    ["functions.sum:2", "3"],
    ["nobody", "4"],
  ]);
});

Deno.test("ollama: a tool call comes whole, its arguments an object", async () => {
  const callOf = (args: string) => callIds("functions.sum:0", args);
  const output = [...encodeIds("Hm."), ...callOf('{"a": 1}'), ...callOf("no JSON")];
  const wanted = [
    { function: { name: "sum", arguments: { a: 1 } } },
    { function: { name: "sum", arguments: { _raw: "no JSON" } } },
  ];
  await withClient({ output }, async (client) => {
    const whole = await client.chat({ model, messages, tools });
    deepEqual([whole.message.content, whole.message.tool_calls], ["Hm.", wanted]);
    let text = "";
    const calls: unknown[] = [];
    for await (const part of await client.chat({ model, messages, tools, stream: true })) {
      text += part.message.content;
      calls.push(...part.message.tool_calls ?? []);
    }
    deepEqual([text, calls], ["Hm.", wanted]);
  });
});

Deno.test("ollama: what it can't do, and bodies that are none, are 400", async () => {
  const app = appOver(new FakeEngine());
  const bad: [string, object | string][] = [
    ["/api/chat", { model, messages: [{ ...messages[0], images: ["aGk="] }] }],
    ["/api/chat", { model, messages, options: 7 }],
    ["/api/chat", { model, messages, options: { temperature: 9 } }],
    ["/api/chat", { model, messages: [7] }],
    ["/api/chat", "no JSON"],
    ["/api/generate", { model, prompt: 7 }],
    ["/api/generate", { model, prompt: "a", suffix: "b" }],
    ["/api/generate", { model, prompt: "a", template: "{{ .Prompt }}" }],
    ["/api/generate", { model, prompt: "a", context: [1, 2] }],
    ["/api/show", {}],
  ];
  for (const [path, body] of bad) {
    const response = await post(app, path, body);
    equal(response.status, 400, JSON.stringify(body));
    const { error } = await response.json();
    equal(typeof error, "string");
    ok(!error.includes("aGk="));
  }
});

Deno.test("ollama client: a format is a grammar", () =>
  withClient({ output: "{}" }, async (client, engine) => {
    const schema = { type: "object", properties: { a: { type: "integer" } } };
    for (const format of ["json", schema]) {
      await client.chat({ model, messages, format });
      const { grammar } = engine.requests.at(-1)!;
      equal(grammar!.kind, "json_schema");
      equal(grammar!.source.includes('"integer"'), typeof format !== "string");
    }
  }));
