import { deepEqual, equal, match, ok } from "node:assert/strict";
import { EngineError, OverloadedError, RequestError } from "../../runtime/errors.ts";
import { GREEDY_SAMPLING } from "../../runtime/engine/sampling.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, eventsOf, FakeEngine, post, type Script } from "./fake_engine.ts";
import { collectLog } from "./log_lines.ts";

const PATH = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hello!" }];
const PROMPT_TOKENS = 9;

async function ask(script: Script, fields: object = {}, contextLength?: number) {
  const engine = new FakeEngine(script, contextLength);
  const response = await post(appOver(engine), PATH, { messages, ...fields });
  return { engine, response, status: response.status };
}

Deno.test("chat: a whole answer", async () => {
  const { response, engine } = await ask({}, { model: "kedge-tiny" });
  equal(response.status, 200);
  const body = await response.json();
  match(body.id, /^chatcmpl-[0-9a-f]{32}$/);
  ok(Math.abs(body.created - Date.now() / 1000) < 5);
  const completionTokens = tinyTokenizer.encode("Hello there!").length + 1;
  deepEqual({ ...body, id: "", created: 0, seed: 0 }, {
    seed: 0,
    id: "",
    object: "chat.completion",
    created: 0,
    model: "kedge-tiny",
    choices: [{
      index: 0,
      message: { role: "assistant", content: "Hello there!", refusal: null },
      logprobs: null,
      finish_reason: "stop",
    }],
    usage: {
      prompt_tokens: PROMPT_TOKENS,
      completion_tokens: completionTokens,
      total_tokens: PROMPT_TOKENS + completionTokens,
      prompt_tokens_details: { cached_tokens: 0 },
    },
    timings: {
      prompt_n: PROMPT_TOKENS,
      prompt_ms: 20,
      prompt_per_token_ms: 20 / PROMPT_TOKENS,
      prompt_per_second: PROMPT_TOKENS * 50,
      predicted_n: completionTokens,
      predicted_ms: 40,
      predicted_per_token_ms: 40 / completionTokens,
      predicted_per_second: completionTokens * 25,
      queued_ms: 1,
    },
  });
  const [request] = engine.requests;
  deepEqual(Array.from(request!.promptIds), [3843, 300, 3857, 1208, 33, 3842, 3844, 298, 3857]);
  equal(request!.maxTokens, 8192 - PROMPT_TOKENS);
  deepEqual(request!.stopIds, tinyGeneration.eosIds);
  equal(request!.logprobs, null);
  equal(engine.running, 0);
});

Deno.test("chat: a stream has role, deltas, reason, usage and [DONE]", async () => {
  const { response } = await ask({}, { stream: true, stream_options: { include_usage: true } });
  equal(response.status, 200);
  match(response.headers.get("content-type")!, /^text\/event-stream/);
  equal(response.headers.get("cache-control"), "no-cache");
  equal(response.headers.get("x-accel-buffering"), "no");
  const events = await eventsOf(response);
  equal(events.pop(), "[DONE]");
  const usage = events.pop();
  deepEqual(usage.choices, []);
  equal(usage.usage.prompt_tokens, PROMPT_TOKENS);
  deepEqual(events[0].choices, [{
    index: 0,
    delta: { role: "assistant", content: "" },
    logprobs: null,
    finish_reason: null,
  }]);
  const last = events.at(-1);
  deepEqual(last.choices[0].delta, {});
  equal(last.choices[0].finish_reason, "stop");
  equal(last.timings.prompt_n, PROMPT_TOKENS);
  equal(events.map((event) => event.choices[0].delta.content ?? "").join(""), "Hello there!");
  for (const event of events) {
    equal(event.object, "chat.completion.chunk");
    equal(event.id, events[0].id);
    equal(event.usage, null);
  }
});

Deno.test("chat: without include_usage no chunk has usage", async () => {
  const { response } = await ask({}, { stream: true });
  const events = await eventsOf(response);
  for (const event of events.slice(0, -1)) equal("usage" in event, false);
});

Deno.test("chat: sampling fields reach the engine, defaults where absent", async () => {
  const { engine } = await ask({}, {
    temperature: 2,
    top_p: 0.5,
    top_k: 7,
    min_p: 0.1,
    seed: 12,
    max_tokens: 3,
    max_completion_tokens: 5,
  });
  deepEqual(engine.requests[0]!.sampling, {
    ...GREEDY_SAMPLING,
    temperature: 2,
    topP: 0.5,
    topK: 7,
    minP: 0.1,
    seed: 12,
  });
  equal(engine.requests[0]!.maxTokens, 5);
  const plain = await ask({}, { temperature: null, seed: null, top_k: -1 });
  const { temperature, topP, minP } = tinyGeneration;
  const { seed, ...rest } = plain.engine.requests[0]!.sampling;
  const { seed: _, ...neutral } = GREEDY_SAMPLING;
  deepEqual(rest, { ...neutral, temperature, topP, topK: 0, minP });
  ok(Number.isSafeInteger(seed) && seed >= 0);
  const again = await ask({}, { seed: -1 });
  ok(again.engine.requests[0]!.sampling.seed !== seed, "the random seed is the same twice");
});

Deno.test("chat: penalties and biases reach the engine", async () => {
  const { engine } = await ask({}, {
    typical_p: 0.9,
    frequency_penalty: 0.5,
    presence_penalty: -0.25,
    repeat_penalty: 1.25,
    logit_bias: { "7": -100, "9": 2.5 },
  });
  const { typicalP, frequencyPenalty, presencePenalty, repetitionPenalty, logitBias } =
    engine.requests[0]!.sampling;
  deepEqual([typicalP, frequencyPenalty, presencePenalty, repetitionPenalty], [
    0.9,
    0.5,
    -0.25,
    1.25,
  ]);
  deepEqual(logitBias, [[7, -100], [9, 2.5]]);
});

Deno.test("chat: return_progress streams how far the prompt is", async () => {
  const { response } = await ask({ progress: [3, 9] }, { stream: true, return_progress: true });
  const progress = (await eventsOf(response)).flatMap((event) => event.prompt_progress ?? []);
  deepEqual(progress.map(({ processed, total, cache }) => [processed, total, cache]), [
    [3, PROMPT_TOKENS, 0],
    [9, PROMPT_TOKENS, 0],
  ]);
  ok(progress.every(({ time_ms }) => time_ms >= 0));
  for (const fields of [{ stream: true }, { return_progress: true }]) {
    const plain = await ask({ progress: [3, 9] }, fields);
    equal(plain.engine.requests[0]!.progress, false);
    equal((await plain.response.text()).includes("prompt_progress"), false);
  }
});

Deno.test("chat: max_tokens ends with reason length; 0 only reads the prompt", async () => {
  for (const max_tokens of [0, 1, 2]) {
    const { response } = await ask({}, { max_tokens });
    const body = await response.json();
    equal(body.choices[0].finish_reason, "length");
    equal(body.usage.completion_tokens, max_tokens);
  }
});

Deno.test("chat: stop strings, whole and streamed, end the generation early", async () => {
  const output = "one two three four five six seven eight";
  for (const [stop, text] of [["three", "one two "], [["xx", "o th"], "one tw"], ["one", ""]]) {
    const { response, engine } = await ask({ output }, { stop });
    const body = await response.json();
    equal(body.choices[0].message.content, text);
    equal(body.choices[0].finish_reason, "stop");
    ok(engine.delivered < tinyTokenizer.encode(output).length, "the engine went on");
    equal(engine.running, 0);
    const streamed = await ask({ output }, { stop, stream: true });
    const events = await eventsOf(streamed.response);
    equal(events.pop(), "[DONE]");
    equal(events.map((event) => event.choices[0].delta.content ?? "").join(""), text);
    equal(events.at(-1).choices[0].finish_reason, "stop");
    equal(streamed.engine.running, 0);
  }
});

Deno.test("chat: text held back for a stop string is delivered when it does not come", async () => {
  const { response } = await ask({ output: "a stop stri" }, { stop: "stop string", stream: true });
  const events = (await eventsOf(response)).slice(0, -1);
  equal(events.map((event) => event.choices[0].delta.content ?? "").join(""), "a stop stri");
});

Deno.test("chat: every stop id ends the text and is not in it; tool markers are", async () => {
  const marker = tinyTokenizer.specialId("<|tool_calls_section_begin|>")!;
  const hello = Array.from(tinyTokenizer.encode("Hi"));
  for (const eos of tinyGeneration.eosIds) {
    const { response } = await ask({ output: [...hello, marker, eos], ends: false });
    const body = await response.json();
    equal(body.choices[0].message.content, "Hi<|tool_calls_section_begin|>");
    equal(body.choices[0].finish_reason, "stop");
  }
});

Deno.test("chat: continue_final_message goes on with the assistant's last message", async () => {
  const begun = { role: "assistant", content: "The answer is" };
  const fields = { messages: [...messages, begun], continue_final_message: true };
  const { engine, status } = await ask({}, fields);
  equal(status, 200);
  const prompt = tinyTokenizer.decode(engine.requests[0]!.promptIds);
  ok(prompt.endsWith("<|im_assistant|>assistant<|im_middle|>The answer is"));
  const call = { id: "functions.f:0", type: "function", function: { name: "f", arguments: "{}" } };
  for (const last of [messages[0], { ...begun, tool_calls: [call] }]) {
    const refused = await ask({}, { messages: [last], continue_final_message: true });
    equal(refused.status, 400);
    match((await refused.response.json()).error.message, /"continue_final_message"/);
  }
});

Deno.test("chat: tools, names, calls and results are in the prompt", async () => {
  const call = { id: "functions.f:0", type: "function", function: { name: "f", arguments: "{}" } };
  const { engine, status } = await ask({}, {
    messages: [
      { role: "developer", content: "Help." },
      { role: "user", name: "Anna", content: [{ type: "text", text: "go" }] },
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "functions.f:0", content: "ok" },
    ],
    tools: [{ type: "function", function: { name: "f", zebra: 1, alpha: 2 } }],
    tool_choice: "auto",
    parallel_tool_calls: true,
    user: "someone",
    metadata: { ignored: true },
  });
  equal(status, 200);
  equal(
    tinyTokenizer.decode(engine.requests[0]!.promptIds),
    "<|im_system|>tool_declare<|im_middle|>" +
      '[{"function":{"alpha":2,"name":"f","zebra":1},"type":"function"}]<|im_end|>' +
      "<|im_system|>system<|im_middle|>Help.<|im_end|>" +
      "<|im_user|>Anna<|im_middle|>go<|im_end|>" +
      "<|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_call_begin|>" +
      "functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>" +
      "<|im_end|><|im_system|>tool<|im_middle|>## Return of functions.f:0\nok<|im_end|>" +
      "<|im_assistant|>assistant<|im_middle|>",
  );
});

Deno.test("chat: log-probabilities of each token of the text, whole and streamed", async () => {
  const ids = Array.from(tinyTokenizer.encode("Hi 🙂"));
  const fields = { logprobs: true, top_logprobs: 2 };
  const { response } = await ask({ output: "Hi 🙂" }, fields);
  const { content } = (await response.json()).choices[0].logprobs;
  deepEqual(content.map((item: { logprob: number }) => item.logprob), ids.map((id) => -id / 1000));
  const bytes = content.flatMap((item: { bytes: number[] }) => item.bytes);
  equal(new TextDecoder().decode(Uint8Array.from(bytes)), "Hi 🙂");
  for (const item of content) equal(item.top_logprobs.length, 2);
  const streamed = await ask({ output: "Hi 🙂" }, { ...fields, stream: true });
  const events = (await eventsOf(streamed.response)).slice(0, -1);
  deepEqual(events.flatMap((event) => event.choices[0].logprobs?.content ?? []), content);
});

Deno.test("chat: a prompt over the context is refused with both counts, never cut", async () => {
  for (const [context, status] of [[8, 400], [9, 400], [10, 200]]) {
    const { response, engine } = await ask({}, {}, context);
    equal(response.status, status);
    if (status === 200) {
      equal(engine.requests[0]!.maxTokens, 1);
      continue;
    }
    const { error } = await response.json();
    equal(error.code, "context_length_exceeded");
    equal(error.param, "messages");
    ok(error.message.includes(`${context} tokens`) && error.message.includes("found 9 tokens"));
    equal(engine.requests.length, 0);
  }
  equal((await ask({}, { max_tokens: 0 }, 9)).status, 200);
  equal((await ask({}, { max_tokens: 500 }, 12)).engine.requests[0]!.maxTokens, 3);
});

const FAILURES: readonly [unknown, number, string][] = [
  [new OverloadedError("queue request: wanted room, found 8 waiting"), 503, "overloaded_error"],
  [new RequestError("sample: wanted x, found y", "seed"), 400, "invalid_request_error"],
  [new EngineError("run step: wanted finite logits, found NaN"), 500, "server_error"],
];

Deno.test("chat: an engine that refuses gives the status, whole and streamed", async () => {
  for (const [value, status, type] of FAILURES) {
    for (const stream of [false, true]) {
      const { response } = await ask({ error: { at: -1, value } }, { stream });
      equal(response.status, status);
      const { error } = await response.json();
      equal(error.type, type);
      equal(error.message, (value as Error).message);
      equal(response.headers.has("retry-after"), status === 503);
    }
  }
});

Deno.test("chat: an engine that fails on the way gives a status or an event", async () => {
  for (const [value, status, type] of FAILURES) {
    const script = { error: { at: 2, value } };
    equal((await ask(script)).status, status);
    const { response, engine } = await ask(script, { stream: true });
    equal(response.status, 200);
    const events = await eventsOf(response);
    deepEqual(Object.keys(events.at(-1)), ["error"]);
    equal(events.at(-1).error.type, type);
    ok(events.length > 2, "the text before the failure is delivered");
    equal(events.includes("[DONE]"), false);
    equal(engine.running, 0);
  }
});

Deno.test("chat: a mistake of the server tells the client nothing and logs no text", async () => {
  const lines = collectLog();
  const value = new TypeError("canary in the message");
  for (const stream of [false, true]) {
    const { response } = await ask({ error: { at: 1, value } }, { stream });
    const text = await response.text();
    ok(text.includes("internal_error"));
    equal(text.includes("canary"), false);
  }
  const faults = lines.filter(({ level }) => level === "ERROR");
  equal(faults.length, 2);
  for (const { frames } of faults) ok(frames.includes("TypeError"));
  equal(JSON.stringify(lines).includes("canary"), false);
});

Deno.test("chat: a stream waits for nobody: it begins before a slow first token", async () => {
  const { response, engine } = await ask({ tokenMs: 60_000 }, { stream: true });
  equal(response.status, 200);
  const reader = response.body!.getReader();
  const { value } = await reader.read();
  ok(new TextDecoder().decode(value).includes('"role":"assistant"'));
  await reader.cancel();
  equal(engine.aborted, 1);
  equal(engine.running, 0);
});

Deno.test("chat: a reader that stops reading holds the engine back", async () => {
  const { response, engine } = await ask({ output: "word ".repeat(2000) }, { stream: true });
  const reader = response.body!.getReader();
  let text = "";
  for (let read = 0; read < 3; read++) {
    text += new TextDecoder().decode((await reader.read()).value);
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
  // One event is asked for ahead, and a token may wait for the rest of a character.
  const received = text.split("\n\n").length;
  ok(engine.delivered <= received + 2, `${engine.delivered} tokens for ${received} events`);
  ok(received > 100, "what is ready together goes out together");
  await reader.cancel();
  equal(engine.running, 0);
});

Deno.test("chat: a request that takes too long ends with 408 or an error event", async () => {
  const chat = async (script: Script, timeoutMs: number, stream: boolean) => {
    const engine = new FakeEngine(script);
    const response = await post(appOver(engine, timeoutMs), PATH, { messages, stream });
    return { engine, response };
  };
  for (const stream of [false, true]) {
    const { engine, response } = await chat({ tokenMs: 60_000 }, 30, stream);
    equal(response.status, 408);
    const { error } = await response.json();
    deepEqual([error.type, error.code], ["timeout_error", "request_timeout"]);
    deepEqual([engine.running, engine.places], [0, 0]);
  }
  const { engine, response } = await chat({ output: "word ".repeat(2000), tokenMs: 5 }, 100, true);
  equal(response.status, 200);
  const events = await eventsOf(response);
  ok(events.length > 3);
  equal(events.at(-1).error.code, "request_timeout");
  deepEqual([engine.running, engine.places], [0, 0]);
  const inTime = await chat({}, 60_000, true);
  equal((await eventsOf(inTime.response)).at(-1), "[DONE]");
});
