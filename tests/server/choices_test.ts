/** Several answers to one chat, and where their texts end. */
import { deepEqual, equal } from "node:assert/strict";
import { tinyGeneration } from "../tools/tiny_text.ts";
import { appOver, eventsOf, FakeEngine, post, type Script } from "./fake_engine.ts";

const messages = [{ role: "user", content: "Hello!" }];
const PROMPT_TOKENS = 9;

async function ask(script: Script, fields: object) {
  const engine = new FakeEngine(script);
  const response = await post(appOver(engine), "/v1/chat/completions", { messages, ...fields });
  return { engine, response };
}

Deno.test("chat: n gives as many choices, each with a seed of its own", async () => {
  const fields = { n: 3, seed: 40, logprobs: true, max_tokens: 9 };
  const { response, engine } = await ask({}, fields);
  const { choices, usage, timings } = await response.json();
  deepEqual(choices.map(({ index }: { index: number }) => index), [0, 1, 2]);
  for (const choice of choices) {
    equal(choice.message.content, "Hello there!");
    equal(choice.finish_reason, "stop");
    equal(choice.logprobs.content.length, usage.completion_tokens / 3 - 1);
  }
  equal(usage.prompt_tokens, PROMPT_TOKENS);
  equal(timings, undefined);
  deepEqual(engine.requests.map(({ sampling }) => sampling.seed), [40, 41, 42]);
  const streamed = await ask({}, {
    ...fields,
    stream: true,
    stream_options: { include_usage: true },
  });
  const texts = ["", "", ""];
  const reasons: string[] = [];
  const events = await eventsOf(streamed.response);
  for (const event of events) {
    for (const { index, delta, finish_reason } of event.choices ?? []) {
      texts[index] += delta.content ?? "";
      if (finish_reason !== null) reasons.push(finish_reason);
    }
  }
  deepEqual(texts, Array(3).fill("Hello there!"));
  deepEqual(reasons, ["stop", "stop", "stop"]);
  deepEqual(events.at(-2).usage, usage);
});

Deno.test("chat: ends of a text as vLLM's clients ask for them", async () => {
  const { eosIds } = tinyGeneration;
  const asked = async (fields: object) => {
    const { minTokens, stopIds } = (await ask({}, fields)).engine.requests[0]!;
    return { minTokens, stopIds };
  };
  deepEqual(await asked({}), { minTokens: 0, stopIds: eosIds });
  deepEqual(await asked({ min_tokens: 7, stop_token_ids: [70, 71] }), {
    minTokens: 7,
    stopIds: [...eosIds, 70, 71],
  });
  deepEqual((await asked({ ignore_eos: true, stop_token_ids: [70] })).stopIds, [70]);
});

Deno.test("completions: n choices to each prompt, prompt by prompt", async () => {
  const engine = new FakeEngine();
  const fields = { prompt: ["a", "b"], n: 2, seed: 5, max_tokens: 9 };
  const response = await post(appOver(engine), "/v1/completions", fields);
  const { choices, usage } = await response.json();
  deepEqual(choices.map(({ index }: { index: number }) => index), [0, 1, 2, 3]);
  deepEqual(engine.requests.map(({ sampling }) => sampling.seed), [5, 6, 5, 6]);
  const [first, second, third] = engine.requests;
  deepEqual(first!.promptIds, second!.promptIds);
  equal(usage.prompt_tokens, first!.promptIds.length + third!.promptIds.length);
  const many = { prompt: Array(200).fill("a"), n: 2 };
  equal((await post(appOver(engine), "/v1/completions", many)).status, 400);
});
