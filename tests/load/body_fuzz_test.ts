/**
 * Seeded bodies against every POST route: only 2xx and 4xx, every refusal an error object, and no
 * word of a request in an error or in the log.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import { startLog } from "../../runtime/log.ts";
import { randomSource } from "../reference/random.ts";
import { appOver, FakeEngine, post } from "../server/fake_engine.ts";

const SEED = 4_711;
const BODIES = 100_000;
/** In keys, values and damaged text. */
const CANARY = "canary";

const NAMES = [
  ...["messages", "prompt", "content", "tokens", "role", "name", "type", "text", "tools", "id"],
  ...["function", "arguments", "tool_calls", "tool_call_id", "parameters", "stop", "stream", "n"],
  ...["stream_options", "include_usage", "max_tokens", "max_completion_tokens", "temperature"],
  ...["top_p", "top_k", "min_p", "seed", "logprobs", "top_logprobs", "echo", "model", "suffix"],
  ...["best_of", "logit_bias", "response_format", "tool_choice", "__proto__", "constructor", ""],
  ...["frequency_penalty", "presence_penalty", "repetition_penalty", "repeat_penalty", "typical_p"],
  ...["typical", "return_progress", "grammar", "with_pieces", "parse_special", "5", "4096", CANARY],
];
const TEXTS = ["", "x", "user", "assistant", "tool", "system", "text", "function", "kedge-tiny"];
const ODD = ["<|im_end|>", "\ud800", "\u0000", "🙂", "null", "auto", "__proto__", CANARY];
const NUMBERS = [0, 1, -1, 0.5, 2, 16, 20, 21, 4095, 4096, 2 ** 31, 2 ** 53, 1e308, -1e308, -0];

class Bodies {
  readonly #random: () => number;
  constructor(seed: number) {
    this.#random = randomSource(seed);
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.#random() * items.length)]!;
  }

  value(depth: number): unknown {
    const kind = depth > 5 ? 0 : this.#random();
    if (kind < 0.25) return this.pick([...TEXTS, ...ODD]);
    if (kind < 0.45) return this.pick(NUMBERS);
    if (kind < 0.55) return this.pick([true, false, null]);
    const length = Math.floor(this.#random() * 4);
    if (kind < 0.75) return Array.from({ length }, () => this.value(depth + 1));
    return this.object(depth + 1, length);
  }

  object(depth: number, length: number): unknown {
    const entries = Array.from({ length }, () => [this.pick(NAMES), this.value(depth)] as const);
    return Object.fromEntries(entries);
  }

  /** A sound request in which a few fields are replaced, so that deep checks are reached. */
  near(): unknown {
    const call = { id: "functions.f:0", type: "function", function: { name: "f", arguments: "" } };
    const sound: Record<string, unknown> = {
      messages: [
        { role: "user", content: this.value(4) },
        { role: "assistant", content: null, tool_calls: [{ ...call, [this.pick(NAMES)]: 1 }] },
        { role: "tool", tool_call_id: "functions.f:0", content: [{ type: "text", text: "x" }] },
      ],
      prompt: this.pick<unknown>(["x", ["x", "y"], [1, 2], [[1], [2]], this.value(2)]),
      tokens: [1, 2],
    };
    for (let change = 0; change < 3; change++) sound[this.pick(NAMES)] = this.value(1);
    return sound;
  }

  next(): string {
    const kind = this.#random();
    const body = JSON.stringify(kind < 0.6 ? this.near() : this.value(0));
    if (kind < 0.9) return body;
    // Damaged text: one piece cut out, or one character replaced.
    const at = Math.floor(this.#random() * body.length);
    return body.slice(0, at) + this.pick(["", "[", "}", '"', "\\", "9"]) + body.slice(at + 1);
  }
}

Deno.test(`fuzz: ${BODIES} bodies, seed ${SEED}`, async () => {
  let lines = 0;
  const leaks: string[] = [];
  startLog({
    level: "debug",
    form: "json",
    write(line) {
      lines++;
      if (line.includes(CANARY)) leaks.push(line);
    },
  });
  const engine = new FakeEngine({ output: "a b" });
  const app = appOver(engine);
  const bodies = new Bodies(SEED);
  const paths = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"];
  const statuses = new Map<number, number>();
  const began = performance.now();
  let slowest = 0;
  for (let round = 0; round < BODIES; round++) {
    const body = bodies.next();
    const path = paths[round % paths.length]!;
    const asked = performance.now();
    const response = await post(app, path, body);
    const text = await response.text();
    slowest = Math.max(slowest, performance.now() - asked);
    const { status } = response;
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    ok(status === 200 || [400, 404].includes(status), `${path} ${body}: ${text}`);
    if (status === 200) {
      ok(!text.includes('"error"'), `${path} ${body}: ${text}`);
      continue;
    }
    const { error } = JSON.parse(text);
    deepEqual(Object.keys(error), ["message", "type", "param", "code"], body);
    equal(text.includes(CANARY), false, `${path} ${body}: ${text}`);
  }
  const took = performance.now() - began;
  console.log(`statuses: ${[...statuses].map((pair) => pair.join(" x ")).join(", ")}`);
  console.log(`${(took / 1000).toFixed(1)} s, the slowest in ${slowest.toFixed(1)} ms`);
  ok(statuses.get(200)! > BODIES / 20, "the bodies reach no generation");
  ok(lines >= BODIES, "the log was not looked at");
  deepEqual(leaks, []);
  deepEqual([engine.places, engine.running], [0, 0]);
});
