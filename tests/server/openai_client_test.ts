/** OpenAI's own client against the app on a real port. */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai";
import { EngineError } from "../../runtime/errors.ts";
import { FakeEngine, type Script, withServer } from "./fake_engine.ts";

const withClient = (
  script: Script,
  test: (client: OpenAI, engine: FakeEngine) => Promise<void>,
) =>
  withServer(
    script,
    (url, engine) =>
      test(new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }), engine),
  );

const model = "kedge-tiny";
const messages = [{ role: "user" as const, content: "Hello!" }];

Deno.test("openai client: chat", () =>
  withClient({ output: "Hi 🙂" }, async (client) => {
    const answer = await client.chat.completions.create({ model, messages, logprobs: true });
    equal(answer.choices[0]!.message.content, "Hi 🙂");
    equal(answer.choices[0]!.finish_reason, "stop");
    equal(
      answer.usage!.total_tokens,
      answer.usage!.prompt_tokens + answer.usage!.completion_tokens,
    );
    equal(answer.choices[0]!.logprobs!.content!.length, answer.usage!.completion_tokens - 1);
  }));

Deno.test("openai client: chat as a stream", () =>
  withClient({ output: "Hi 🙂 there" }, async (client) => {
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let tokens = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      tokens = chunk.usage?.total_tokens ?? tokens;
    }
    equal(text, "Hi 🙂 there");
    ok(tokens > 0);
    const helper = client.chat.completions.stream({ model, messages });
    equal((await helper.finalMessage()).content, "Hi 🙂 there");
  }));

Deno.test("openai client: completions, whole and as a stream", () =>
  withClient({ output: " world" }, async (client) => {
    const request = { model, prompt: ["Hello", "Bye"], logprobs: 2, echo: true };
    const answer = await client.completions.create(request);
    deepEqual(answer.choices.map((choice) => choice.text), ["Hello world", "Bye world"]);
    for (const { logprobs } of answer.choices) {
      equal(logprobs!.tokens!.length, logprobs!.text_offset!.length);
    }
    const texts = ["", ""];
    for await (const chunk of await client.completions.create({ ...request, stream: true })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.text;
    }
    deepEqual(texts, ["Hello world", "Bye world"]);
  }));

Deno.test("openai client: models", () =>
  withClient({}, async (client) => {
    const ids: string[] = [];
    for await (const each of client.models.list()) ids.push(each.id);
    deepEqual(ids, [model]);
    equal((await client.models.retrieve(model)).object, "model");
  }));

Deno.test("openai client: errors have their class, field and code", () =>
  withClient({}, async (client) => {
    await rejects(
      client.chat.completions.create({ model, messages, temperature: 3 }),
      (error: unknown) => error instanceof BadRequestError && error.param === "temperature",
    );
    await rejects(
      client.chat.completions.create({ model: "other", messages }),
      (error: unknown) => error instanceof NotFoundError && error.code === "model_not_found",
    );
  }));

Deno.test("openai client: a failure in a stream reaches the reader as an error", () => {
  const value = new EngineError("run step: wanted finite logits, found NaN", "engine_failed");
  return withClient({ error: { at: 2, value } }, async (client) => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    await rejects(async () => {
      for await (const _ of stream);
    }, (error: unknown) => error instanceof APIError && error.code === "engine_failed");
  });
});

Deno.test("openai client: leaving a stream early frees the engine", () =>
  withClient({ output: "word ".repeat(1000), tokenMs: 2 }, async (client, engine) => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    for (let wait = 0; engine.running > 0 && wait < 500; wait++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    equal(engine.running, 0);
  }));
