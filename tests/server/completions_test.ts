import { deepEqual, equal, match, ok } from "node:assert/strict";
import { EngineError } from "../../runtime/errors.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, eventsOf, FakeEngine, post, type Script } from "./fake_engine.ts";

async function ask(script: Script, fields: object, contextLength?: number) {
  const engine = new FakeEngine(script, contextLength);
  const response = await post(appOver(engine), "/v1/completions", fields);
  return { engine, response, status: response.status };
}

const idsOf = (text: string) => Array.from(tinyTokenizer.encode(text));

Deno.test("completions: a whole answer, 16 tokens unless told", async () => {
  const { response, engine } = await ask({ output: " upon a time" }, { prompt: "Once" });
  const body = await response.json();
  match(body.id, /^cmpl-[0-9a-f]{32}$/);
  equal(body.object, "text_completion");
  deepEqual(body.choices, [
    { index: 0, text: " upon a time", logprobs: null, finish_reason: "stop" },
  ]);
  equal(body.usage.prompt_tokens, idsOf("Once").length);
  equal(body.timings.predicted_ms, 40);
  equal(engine.requests[0]!.maxTokens, 16);
  equal(engine.requests[0]!.promptLogprobs, false);
});

Deno.test("completions: ids in, specials among them; nothing is put before a prompt", async () => {
  const { engine } = await ask({}, { prompt: [3843, 300, 5] });
  deepEqual(Array.from(engine.requests[0]!.promptIds), [3843, 300, 5]);
  const text = await ask({}, { prompt: "<|im_end|>x" });
  deepEqual(Array.from(text.engine.requests[0]!.promptIds), idsOf("<|im_end|>x"));
  ok(text.engine.requests[0]!.promptIds.every((id) => id < tinyTokenizer.rankCount));
});

Deno.test("completions: several prompts share the slots, choices in order", async () => {
  const engine = new FakeEngine((request) => ({
    output: [...request.promptIds].reverse(),
    tokenMs: request.promptIds.length % 3,
  }));
  const prompt = Array.from({ length: 11 }, (_, n) => Array.from({ length: n + 1 }, () => 97 + n));
  const app = appOver(engine);
  const body = await (await post(app, "/v1/completions", { prompt })).json();
  equal(engine.mostRunning, engine.model.slots);
  equal(body.choices.length, 11);
  for (const [n, choice] of body.choices.entries()) {
    equal(choice.index, n);
    equal(choice.text, tinyTokenizer.decode(prompt[n]!.slice(0, 16)));
  }
  equal(body.usage.prompt_tokens, 66);
  equal(body.usage.completion_tokens, 66 + 11);
  equal("timings" in body, false);

  const response = await post(app, "/v1/completions", {
    prompt,
    stream: true,
    stream_options: { include_usage: true },
  });
  const events = await eventsOf(response);
  equal(events.pop(), "[DONE]");
  deepEqual(events.pop().usage, body.usage);
  const texts = prompt.map(() => "");
  const reasons = prompt.map(() => null);
  for (const { choices: [{ index, text, finish_reason }] } of events) {
    equal(reasons[index], null, "text after the end of a choice");
    texts[index] += text;
    reasons[index] = finish_reason;
  }
  deepEqual(texts, body.choices.map((choice: { text: string }) => choice.text));
  ok(reasons.every((reason) => reason === "stop"));
});

Deno.test("completions: texts as a list", async () => {
  const { engine, response } = await ask({}, { prompt: ["a", "b c"] });
  equal((await response.json()).choices.length, 2);
  deepEqual(engine.requests.map((request) => Array.from(request.promptIds)), [
    idsOf("a"),
    idsOf("b c"),
  ]);
});

Deno.test("completions: echo with log-probabilities and no tokens scores a text", async () => {
  const prompt = "Grüße 🙂 aus Köln";
  const ids = idsOf(prompt);
  const fields = { prompt, echo: true, max_tokens: 0, logprobs: 1 };
  const { response, engine } = await ask({}, fields);
  const [choice] = (await response.json()).choices;
  equal(engine.requests[0]!.promptLogprobs, true);
  equal(choice.text, prompt);
  equal(choice.finish_reason, "length");
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  equal(tokens.length, ids.length);
  deepEqual(token_logprobs, [null, ...ids.slice(1).map((id) => -id / 1000)]);
  equal(top_logprobs[0], null);
  equal(top_logprobs.length, ids.length);
  // Each token begins where the text of those before it ends, counted in code points.
  const points = Array.from(prompt);
  for (const [at, token] of tokens.entries()) {
    if (token.startsWith("bytes:")) {
      match(token, /^bytes:(\\x[0-9a-f]{2})+$/);
      continue;
    }
    const piece = points.slice(text_offset[at], text_offset[at] + Array.from(token).length);
    equal(piece.join(""), token);
  }
  ok(tokens.some((token: string) => token.startsWith("bytes:")), "the emoji is several tokens");
  const best = top_logprobs[1];
  equal(best[tokens[1]], -ids[1]! / 1000);
  equal(Object.keys(best).length, 2);
});

Deno.test("completions: echo and generated tokens align, stop token included", async () => {
  const prompt = "Say hi:";
  const output = " hi 🙂";
  const fields = { prompt, echo: true, logprobs: 0 };
  const { response } = await ask({ output }, fields);
  const body = await response.json();
  const [choice] = body.choices;
  equal(choice.text, prompt + output);
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  const all = [...idsOf(prompt), ...idsOf(output)];
  equal(tokens.length, all.length + 1);
  equal(tokens.at(-1), tinyTokenizer.decode([tinyGeneration.eosIds[0]!]));
  equal(text_offset.at(-1), Array.from(prompt + output).length);
  equal(tokens.length, body.usage.prompt_tokens + body.usage.completion_tokens);
  equal(token_logprobs.length, tokens.length);
  deepEqual(Object.keys(top_logprobs[1]), [tokens[1]]);
  const streamed = await ask({ output }, { ...fields, stream: true });
  const events = (await eventsOf(streamed.response)).slice(0, -1);
  equal(events.map((event) => event.choices[0].text).join(""), choice.text);
  for (const key of ["tokens", "token_logprobs", "top_logprobs", "text_offset"]) {
    const parts = events.flatMap((event) => event.choices[0].logprobs?.[key] ?? []);
    deepEqual(parts, choice.logprobs[key], key);
  }
});

Deno.test("completions: as lm-eval asks, one token and the arrays' last item is it", async () => {
  const { response } = await ask({}, {
    prompt: [[97, 98, 99], [100, 101]],
    max_tokens: 1,
    logprobs: 1,
    echo: true,
    seed: 1234,
    temperature: 0,
  });
  const { choices } = await response.json();
  deepEqual(
    choices.map((choice: { logprobs: { tokens: string[] } }) => choice.logprobs.tokens.length),
    [4, 3],
  );
});

Deno.test("completions: echo without log-probabilities, specials shown as sent", async () => {
  const { response } = await ask({ output: "b" }, { prompt: [3843, 97], echo: true });
  const [choice] = (await response.json()).choices;
  equal(choice.text, `<|im_user|>${tinyTokenizer.decode([97])}b`);
  equal(choice.logprobs, null);
});

Deno.test("completions: a token named __proto__ is a key like any other", async () => {
  const ids = idsOf("__proto__");
  const { response } = await ask({}, { prompt: ids, echo: true, logprobs: 1, max_tokens: 0 });
  const { logprobs } = (await response.json()).choices[0];
  for (const [at, token] of logprobs.tokens.entries()) {
    if (at > 0) ok(Object.hasOwn(logprobs.top_logprobs[at], token));
  }
});

Deno.test("completions: stop strings are looked for in the completion only", async () => {
  const { response } = await ask({ output: "d e f" }, { prompt: "a b c", echo: true, stop: "b" });
  equal((await response.json()).choices[0].text, "a b cd e f");
});

Deno.test("completions: one prompt that fails ends the others", async () => {
  const failing = { error: { at: 1, value: new EngineError("run step: wanted x, found y") } };
  const engine = new FakeEngine((request) =>
    request.promptIds[0] === 97 ? failing : { tokenMs: 10_000 }
  );
  const fields = { prompt: [[97], [98], [99]] };
  equal((await post(appOver(engine), "/v1/completions", fields)).status, 500);
  equal(engine.running, 0);
  const response = await post(appOver(engine), "/v1/completions", { ...fields, stream: true });
  ok(response.status === 500 || (await eventsOf(response)).at(-1).error);
  await new Promise((resolve) => setTimeout(resolve, 5));
  equal(engine.running, 0);
});

Deno.test("completions: return_progress streams how far each prompt is", async () => {
  const { response } = await ask({ progress: [1, 2] }, {
    prompt: [[97, 98], [99, 100]],
    stream: true,
    return_progress: true,
  });
  const events = (await eventsOf(response)).slice(0, -1);
  const progress = events.filter((event) => event.prompt_progress !== undefined);
  for (const index of [0, 1]) {
    const own = progress.filter((event) => event.choices[0].index === index);
    deepEqual(
      own.map(({ prompt_progress: { total, cache, processed } }) => [
        total,
        cache,
        processed,
      ]),
      [[2, 0, 1], [2, 0, 2]],
    );
    ok(own.every(({ choices: [{ text }] }) => text === ""));
  }
});

Deno.test("completions: a long echo is the prompt, whole and streamed", async () => {
  const prompt = Array.from({ length: 30_000 }, (_, at) => 97 + at % 26);
  const fields = { prompt, echo: true, logprobs: 1, max_tokens: 1 };
  const { response } = await ask({ output: [97] }, fields, 40_000);
  const [choice] = (await response.json()).choices;
  equal(choice.text, tinyTokenizer.decode([...prompt, 97]));
  deepEqual(choice.logprobs.token_logprobs.slice(0, 3), [null, -0.098, -0.099]);
  equal(choice.logprobs.tokens.length, 30_001);
  equal(choice.logprobs.text_offset.at(-1), 30_000);
  const streamed = await ask({ output: [97] }, { ...fields, stream: true }, 40_000);
  const events = (await eventsOf(streamed.response)).slice(0, -1);
  ok(events.length > 100);
  equal(events.map((event) => event.choices[0].text).join(""), choice.text);
  deepEqual(
    events.flatMap((event) => event.choices[0].logprobs?.text_offset ?? []),
    choice.logprobs.text_offset,
  );
});

const REFUSED: readonly [string, object, string][] = [
  ["empty text", { prompt: "" }, "prompt"],
  ["empty list", { prompt: [] }, "prompt"],
  ["empty text among texts", { prompt: ["a", ""] }, "prompt[1]"],
  ["empty list among lists", { prompt: [[1], []] }, "prompt[1]"],
  ["no prompt", {}, "prompt"],
  ["id at the vocabulary's end", { prompt: [1, 4096] }, "prompt[1]"],
  ["negative id", { prompt: [[1], [-1]] }, "prompt[1][0]"],
  ["fraction", { prompt: [1.5] }, "prompt[0]"],
  ["text among ids", { prompt: [1, "a"] }, "prompt[1]"],
  ["object", { prompt: {} }, "prompt"],
  ["257 prompts", { prompt: Array(257).fill("a") }, "prompt"],
];

Deno.test("completions: prompts that are none are refused by name", async () => {
  for (const [name, fields, param] of REFUSED) {
    const { response, engine } = await ask({}, fields);
    equal(response.status, 400, name);
    equal((await response.json()).error.param, param, name);
    equal(engine.requests.length, 0);
  }
});

Deno.test("completions: a prompt over the context is refused with both counts", async () => {
  const { response } = await ask({}, { prompt: [Array(20).fill(97), [97]] }, 10);
  equal(response.status, 400);
  const { error } = await response.json();
  equal(error.code, "context_length_exceeded");
  ok(error.message.includes("10 tokens") && error.message.includes("20 tokens"));
});

Deno.test("completions: a schema is written once, whatever the number of prompts", async () => {
  const engine = new FakeEngine();
  const body = { prompt: ["a", "b", "c"], n: 2, json_schema: { type: "object" } };
  equal((await post(appOver(engine), "/v1/completions", body)).status, 200);
  equal(engine.requests.length, 6);
  equal(new Set(engine.requests.map(({ grammar }) => grammar)).size, 1);
});
