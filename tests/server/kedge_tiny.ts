/**
 * The embedded model through HTTP on one device, as users reach it; registered by a file a device.
 */
import assert from "node:assert";
import OpenAI from "openai";
import { MODEL, type RunningServer, startServer } from "./running.ts";

interface Sample {
  readonly name: string;
  readonly messages?: OpenAI.ChatCompletionMessageParam[];
  readonly tools?: OpenAI.ChatCompletionTool[];
  readonly prompt?: string;
  readonly prompt_ids: number[];
  readonly output_ids: number[];
  readonly text: string;
  readonly min_top2_gap: number;
}

/** Above this distance of the two best logits, rounding can't turn a token. */
const EXACT_GAP = 0.02;
/** Along given ids: f16 latents and other summation orders move log-probabilities by less. */
const LOGPROB_LARGEST = 1e-2;

interface Running extends RunningServer {
  readonly client: OpenAI;
}

async function start(device: "cpu" | "webgpu"): Promise<Running> {
  const server = await startServer({ device });
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  return { ...server, client };
}

/** `names`: the samples to run; a software adapter is too slow for all. */
export function registerKedgeTinyTests(device: "cpu" | "webgpu", names: readonly string[]): void {
  Deno.test({
    name: `kedge-tiny through HTTP on ${device}`,
    sanitizeResources: false,
    sanitizeOps: false,
    fn: async (t) => {
      const running = await start(device);
      const samples: Sample[] = JSON.parse(await Deno.readTextFile(`${MODEL}/samples.json`))
        .filter((sample: Sample) => names.includes(sample.name));
      assert.strictEqual(samples.length, names.length);
      try {
        for (const sample of samples) {
          await t.step(sample.name, async () => {
            if (sample.min_top2_gap >= EXACT_GAP) await checkExact(running, sample);
            else await checkLogprobs(running, sample);
          });
        }
        await t.step("streams what it answers whole", () => checkStreams(running));
        await t.step("a text is as long as asked", () => checkLengths(running));
        await t.step("a client that leaves frees its slot", () => checkLeaving(running));
      } finally {
        await running.stop();
      }
    },
  });
}

/** The greedy ids are the oracle's, through the chat route and through token ids. */
async function checkExact({ client, tokenizer }: Running, sample: Sample): Promise<void> {
  const wanted = tokenizer.decode(sample.output_ids.slice(0, -1));
  const limit = sample.output_ids.length;
  const whole = await client.completions.create({
    model: "kedge-tiny",
    prompt: sample.prompt_ids,
    temperature: 0,
    max_tokens: limit,
  });
  assert.strictEqual(whole.choices[0]!.text, wanted);
  assert.strictEqual(whole.choices[0]!.finish_reason, "stop");
  assert.strictEqual(whole.usage!.completion_tokens, limit);
  if (sample.messages === undefined) return;
  const chat = await client.chat.completions.create({
    model: "kedge-tiny",
    messages: sample.messages,
    ...(sample.tools === undefined ? {} : { tools: sample.tools }),
    temperature: 0,
    max_tokens: limit,
  });
  const { message, finish_reason: reason } = chat.choices[0]!;
  const calls = message.tool_calls ?? [];
  const callText = calls.map((call) => {
    assert.ok(call.type === "function");
    return `<|tool_call_begin|>${call.id}<|tool_call_argument_begin|>${call.function.arguments}` +
      "<|tool_call_end|>";
  }).join("");
  const section = `<|tool_calls_section_begin|>${callText}<|tool_calls_section_end|>`;
  assert.strictEqual((message.content ?? "") + (calls.length > 0 ? section : ""), wanted);
  assert.strictEqual(reason, calls.length > 0 ? "tool_calls" : "stop");
  assert.strictEqual(chat.usage!.prompt_tokens, sample.prompt_ids.length);
}

/** Along the oracle's ids the log-probabilities are the oracle's. */
async function checkLogprobs({ client }: Running, sample: Sample): Promise<void> {
  const fixture = new URL("./fixtures/sample_logprobs.json", import.meta.url);
  const wanted: number[] = JSON.parse(await Deno.readTextFile(fixture))[sample.name];
  const scored = await client.completions.create({
    model: "kedge-tiny",
    prompt: [...sample.prompt_ids, ...sample.output_ids],
    max_tokens: 0,
    echo: true,
    logprobs: 0,
  });
  const found = scored.choices[0]!.logprobs!.token_logprobs!.slice(sample.prompt_ids.length);
  assert.strictEqual(found.length, wanted.length);
  for (const [index, logprob] of wanted.entries()) {
    const distance = Math.abs(found[index]! - logprob);
    assert.ok(distance <= LOGPROB_LARGEST, `token ${index}: off by ${distance}`);
  }
}

async function checkStreams({ client }: Running): Promise<void> {
  const request = {
    model: "kedge-tiny",
    messages: [{ role: "user" as const, content: "Tell me a joke" }],
    seed: 7,
    temperature: 0.6,
    max_tokens: 40,
  };
  const whole = await client.chat.completions.create(request);
  const stream = await client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let reason: string | null = null;
  let usage: OpenAI.CompletionUsage | null = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  assert.strictEqual(text, whole.choices[0]!.message.content);
  assert.strictEqual(reason, whole.choices[0]!.finish_reason);
  assert.deepStrictEqual(usage!.completion_tokens, whole.usage!.completion_tokens);
  const completion = await client.completions.create({
    model: "kedge-tiny",
    prompt: "Once upon a time",
    stream: true,
    max_tokens: 8,
  });
  let pieces = "";
  for await (const chunk of completion) pieces += chunk.choices[0]?.text ?? "";
  assert.ok(pieces.length > 0);
}

async function checkLengths({ url }: Running): Promise<void> {
  const tokens = async (fields: object): Promise<number> => {
    const messages = [{ role: "user", content: "Hello!" }];
    const body = JSON.stringify({ messages, temperature: 0, max_tokens: 48, ...fields });
    const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", body });
    return (await response.json()).usage.completion_tokens;
  };
  const own = await tokens({});
  assert.ok(own < 30);
  assert.ok(await tokens({ min_tokens: 30 }) >= 30);
  assert.strictEqual(await tokens({ ignore_eos: true }), 48);
  // The id that ends the text is one of its tokens.
  assert.strictEqual(await tokens({ min_tokens: own - 1 }), own);
}

async function checkLeaving({ engine, url }: Running): Promise<void> {
  const leaving = new AbortController();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Once upon", max_tokens: 1_500, stream: true, temperature: 0 }),
    signal: leaving.signal,
  });
  const reader = response.body!.getReader();
  await reader.read();
  leaving.abort();
  await reader.read().catch(() => {});
  // A whole story takes longer than this on either device.
  const deadline = performance.now() + (engine.model.device === "cpu" ? 250 : 4_000);
  while (engine.stats.running > 0) {
    assert.ok(performance.now() < deadline, "the request still runs after its client left");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
