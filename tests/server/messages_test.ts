/** Anthropic's own client against the app on a real port, and what it does not show. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import Anthropic, { BadRequestError, InternalServerError, NotFoundError } from "@anthropic-ai/sdk";
import { EngineError } from "../../runtime/errors.ts";
import { callIds, encodeIds, markerId } from "../tools/tiny_calls.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, FakeEngine, post, type Script, withServer } from "./fake_engine.ts";

const model = "kedge-tiny";
const max_tokens = 100;
const messages = [{ role: "user" as const, content: "Hello!" }];
const tools = [{
  name: "get_time",
  description: "Time of a city",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } } },
}];
const CALLS = [
  ...encodeIds("Wait."),
  markerId("tool_calls_section_begin"),
  ...callIds("functions.get_time:0", '{"city": "Oslo"}'),
  ...callIds("functions.get_time:1", "no JSON"),
  markerId("tool_calls_section_end"),
];
const CALL_BLOCKS = [
  { type: "text", text: "Wait." },
  { type: "tool_use", id: "functions.get_time:0", name: "get_time", input: { city: "Oslo" } },
  { type: "tool_use", id: "functions.get_time:1", name: "get_time", input: { _raw: "no JSON" } },
];

const withClient = (
  script: Script,
  test: (client: Anthropic, engine: FakeEngine) => Promise<void>,
) =>
  withServer(
    script,
    (baseURL, engine) => test(new Anthropic({ baseURL, apiKey: "none", maxRetries: 0 }), engine),
  );

const promptOf = (engine: FakeEngine) => tinyTokenizer.decode(engine.requests.at(-1)!.promptIds);

Deno.test("anthropic client: a message, whole", () =>
  withClient({ output: "Hi 🙂" }, async (client, engine) => {
    // The client's types lack these fields; its older versions send them.
    const sampling = { temperature: 0.5, top_k: 7, top_p: 0.9 };
    const answer = await client.messages.create({
      ...sampling,
      model,
      max_tokens,
      system: [{ type: "text", text: "Be " }, { type: "text", text: "brief." }],
      messages,
      metadata: { user_id: "ignored" },
    });
    match(answer.id, /^msg_/);
    deepEqual([answer.type, answer.role, answer.model], ["message", "assistant", model]);
    deepEqual(answer.content, [{ type: "text", text: "Hi 🙂" }]);
    deepEqual([answer.stop_reason, answer.stop_sequence], ["end_turn", null]);
    const [request] = engine.requests;
    equal(answer.usage.input_tokens, request!.promptIds.length);
    equal(answer.usage.output_tokens, encodeIds("Hi 🙂").length + 1);
    equal(
      promptOf(engine),
      "<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|>Hello!" +
        "<|im_end|><|im_assistant|>assistant<|im_middle|>",
    );
    const { temperature, topK, topP } = request!.sampling;
    deepEqual([temperature, topK, topP, request!.maxTokens], [0.5, 7, 0.9, max_tokens]);
  }));

Deno.test("anthropic client: why an answer ended", () =>
  withClient({ output: "one two three" }, async (client) => {
    const request = { model, max_tokens, messages };
    const stopped = await client.messages.create({ ...request, stop_sequences: [" two"] });
    deepEqual([stopped.stop_reason, stopped.stop_sequence], ["stop_sequence", " two"]);
    deepEqual(stopped.content, [{ type: "text", text: "one" }]);
    const cut = await client.messages.create({ ...request, max_tokens: 1 });
    equal(cut.stop_reason, "max_tokens");
  }));

Deno.test("anthropic client: the stream's events come in their order", () =>
  withClient({ output: "Hi there" }, async (client) => {
    const stream = client.messages.stream({ model, max_tokens, messages });
    const events: string[] = [];
    stream.on("streamEvent", ({ type }) => events.push(type));
    const last = await stream.finalMessage();
    deepEqual(last.content.map((block) => block.type === "text" && block.text), ["Hi there"]);
    equal(last.usage.output_tokens, encodeIds("Hi there").length + 1);
    deepEqual(events.slice(0, 2), ["message_start", "content_block_start"]);
    deepEqual(events.slice(-3), ["content_block_stop", "message_delta", "message_stop"]);
    ok(events.slice(2, -3).every((type) => type === "content_block_delta"));
  }));

Deno.test("anthropic client: tool calls, whole and streamed", () =>
  withClient({ output: CALLS }, async (client) => {
    const request = { model, max_tokens, messages, tools };
    const whole = await client.messages.create(request);
    deepEqual(whole.content, CALL_BLOCKS);
    equal(whole.stop_reason, "tool_use");
    const raw = await client.messages.create({ ...request, stream: true });
    const blocks: { block: object; json: string }[] = [];
    let open = -1;
    for await (const event of raw) {
      if (event.type === "content_block_start") {
        equal(open, -1, "one block is open at a time");
        open = event.index;
        equal(event.index, blocks.length);
        blocks.push({ block: event.content_block, json: "" });
      } else if (event.type === "content_block_delta") {
        equal(event.index, open);
        if (event.delta.type === "input_json_delta") blocks[open]!.json += event.delta.partial_json;
        if (event.delta.type === "text_delta") blocks[open]!.json += event.delta.text;
      } else if (event.type === "content_block_stop") open = -1;
      else if (event.type === "message_delta") equal(event.delta.stop_reason, "tool_use");
    }
    deepEqual(blocks.map(({ json }) => json), ["Wait.", '{"city": "Oslo"}', "no JSON"]);
    deepEqual(blocks[1]!.block, { ...CALL_BLOCKS[1], input: {} });
  }));

Deno.test("anthropic client: calls and results of a conversation are Kimi's turns", () =>
  withClient({}, async (client, engine) => {
    await client.messages.create({
      model,
      max_tokens,
      tools,
      tool_choice: { type: "auto", disable_parallel_tool_use: true },
      messages: [
        ...messages,
        {
          role: "assistant",
          content: [
            { type: "text", text: "Wait." },
            { type: "tool_use", id: "toolu_1", name: "get_time", input: { city: "Oslo" } },
          ],
        },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "toolu_1", content: "no", is_error: true },
            { type: "text", text: "And now?" },
          ],
        },
      ],
    });
    ok(
      promptOf(engine).endsWith(
        "<|im_assistant|>assistant<|im_middle|>Wait.<|tool_calls_section_begin|>" +
          "<|tool_call_begin|>functions.get_time:0<|tool_call_argument_begin|>" +
          '{"city": "Oslo"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>' +
          "<|im_system|>tool<|im_middle|>## Return of functions.get_time:0\nError: no<|im_end|>" +
          "<|im_user|>user<|im_middle|>And now?<|im_end|><|im_assistant|>assistant<|im_middle|>",
      ),
    );
    ok(engine.requests[0]!.stopIds.includes(markerId("tool_call_end")));
  }));

Deno.test("anthropic client: an assistant's message at the end is gone on with", () =>
  withClient({}, async (client, engine) => {
    const begun = { role: "assistant" as const, content: "The answer is" };
    await client.messages.create({ model, max_tokens, messages: [...messages, begun] });
    ok(promptOf(engine).endsWith("<|im_assistant|>assistant<|im_middle|>The answer is"));
  }));

Deno.test("anthropic client: count_tokens counts what a message would take", () =>
  withClient({}, async (client, engine) => {
    const request = { model, messages, tools, system: "Be brief." };
    const { input_tokens } = await client.messages.countTokens(request);
    equal(engine.requests.length, 0);
    await client.messages.create({ ...request, max_tokens });
    equal(input_tokens, engine.requests[0]!.promptIds.length);
    const long = [{ role: "user" as const, content: "word ".repeat(20_000) }];
    const counted = await client.messages.countTokens({ model, messages: long });
    ok(counted.input_tokens > engine.model.contextLength);
  }));

Deno.test("anthropic client: errors have its shape", async () => {
  await withClient({}, async (client) => {
    const request = { model, max_tokens, messages };
    await rejects(client.messages.create({ ...request, model: "other" }), (error) => {
      ok(error instanceof NotFoundError);
      equal((error.error as { error: { type: string } }).error.type, "not_found_error");
      return true;
    });
    const hot = { ...request, temperature: 9 };
    await rejects(client.messages.create(hot), (error) => {
      ok(error instanceof BadRequestError);
      match(error.message, /temperature.*wanted a number from 0 to 2/);
      return true;
    });
  });
  const failed = { error: { at: 0, value: new EngineError("run a step: it broke") } };
  await withClient(failed, async (client) => {
    await rejects(client.messages.create({ model, max_tokens, messages }), InternalServerError);
    await rejects(
      client.messages.stream({ model, max_tokens, messages }).finalMessage(),
      /it broke/,
    );
  });
});

Deno.test("messages: bodies that are none are 400 and name the field", async () => {
  const app = appOver(new FakeEngine());
  const user = (content: unknown) => ({ messages: [{ role: "user", content }] });
  const bad: [object, string][] = [
    [{ messages, max_tokens: undefined }, "max_tokens"],
    [{ messages, max_tokens: -1 }, "max_tokens"],
    [{ messages: [] }, "messages"],
    [{ messages: undefined }, "messages"],
    [{ messages: [{ role: "tool", content: "canary" }] }, "messages[0].role"],
    [user(7), "messages[0].content"],
    [user([{ type: "image", source: {} }]), "messages[0].content[0].type"],
    [user([{ type: "text" }]), "messages[0].content[0].text"],
    [user([{ type: "tool_result" }]), "messages[0].content[0].tool_use_id"],
    [user([{ type: "tool_use", id: "a", name: "b" }]), "messages[0].content[0].input"],
    [{ messages, system: 7 }, "system"],
    [{ messages, tools: [{ name: "f" }] }, "tools[0].input_schema"],
    [{ messages, tools: [{ type: "web_search_20250305", name: "w" }] }, "tools[0].type"],
    [{ messages, tool_choice: "canary" }, "tool_choice"],
    [{ messages, stop_sequences: [""] }, "stop_sequences[0]"],
  ];
  for (const [fields, field] of bad) {
    const response = await post(app, "/v1/messages", { model, max_tokens, ...fields });
    equal(response.status, 400, JSON.stringify(fields));
    const { type, error } = await response.json();
    deepEqual([type, error.type], ["error", "invalid_request_error"]);
    ok(error.message.includes(`"${field}"`), `${error.message} names ${field}`);
    ok(!error.message.includes("canary"));
  }
});

Deno.test("messages: what agents send between the turns as system is such a turn", async () => {
  const engine = new FakeEngine();
  const turns = [
    { role: "user", content: [{ type: "text", text: "Read a.py", cache_control: {} }] },
    { role: "system", content: [{ type: "text", text: "Today is Monday." }] },
  ];
  const body = { model, max_tokens, messages: turns, thinking: { type: "adaptive" } };
  equal((await post(appOver(engine), "/v1/messages", body)).status, 200);
  match(promptOf(engine), /Read a\.py<\|im_end\|><\|im_system\|>system<\|im_middle\|>Today is/);
});

Deno.test("messages: a prompt that is too long is one in Anthropic's words", async () => {
  const long = [{ role: "user", content: "word ".repeat(20_000) }];
  const body = { model, max_tokens, messages: long };
  const response = await post(appOver(new FakeEngine()), "/v1/messages", body);
  equal(response.status, 400);
  const { error } = await response.json();
  equal(error.type, "invalid_request_error");
  match(error.message, /^prompt is too long: .* context of 8192 tokens, found \d+ tokens$/);
});

Deno.test("messages: output_config asks for a form of the answer", async () => {
  const engine = new FakeEngine();
  const schema = { type: "object", properties: { a: { type: "string" } } };
  const body = { model, max_tokens, messages };
  const app = appOver(engine);
  const format = { type: "json_schema", schema };
  equal((await post(app, "/v1/messages", { ...body, output_config: { format } })).status, 200);
  match(JSON.stringify(engine.requests[0]!.grammar), /json_schema/);
  equal(
    (await post(app, "/v1/messages", { ...body, output_config: { effort: "low" } })).status,
    200,
  );
  equal(engine.requests[1]!.grammar, null);
  const other = { type: "xml", schema };
  equal(
    (await post(app, "/v1/messages", { ...body, output_config: { format: other } })).status,
    400,
  );
});
