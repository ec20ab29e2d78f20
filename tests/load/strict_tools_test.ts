/**
 * 400 answers at temperature 1 with strict tools that the model may call or not: every call that
 * it begins names a tool, and its arguments are valid by another implementation of JSON schema.
 */
import { equal, ok } from "node:assert/strict";
import Ajv from "ajv/dist/2020.js";
import { startServer } from "../server/running.ts";

const ANSWERS = 400;
const CLIENTS = 8;
const MAX_TOKENS = 400;
const closed = (properties: Record<string, object>) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
const PARAMETERS: Readonly<Record<string, object>> = {
  get_weather: closed({
    city: { type: "string", minLength: 1, maxLength: 20 },
    unit: { enum: ["celsius", "fahrenheit"] },
    days: { type: "integer", minimum: 1, maximum: 9 },
  }),
  send_message: closed({
    to: { type: "array", items: { type: "string", pattern: "^[a-z]{2,8}$" }, maxItems: 3 },
    urgent: { type: "boolean" },
  }),
  set_timer: closed({ minutes: { type: "integer", minimum: 1, maximum: 60 } }),
};
const QUESTIONS = [
  "What is the weather in Oslo?",
  "Tell Anna that I am late.",
  "Set a timer for 5 minutes.",
  "Tell me a story.",
  "What is the weather in Paris, and in Rome?",
];
const tools = Object.entries(PARAMETERS).map(([name, parameters]) => ({
  type: "function",
  function: { name, description: name.replace("_", " "), parameters, strict: true },
}));

interface Answer {
  readonly choices: readonly {
    readonly finish_reason: string;
    readonly message: {
      readonly tool_calls?: readonly { function: { name: string; arguments: string } }[];
    };
  }[];
}

Deno.test({
  name: `strict tools: the calls of ${ANSWERS} answers are valid`,
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    // deno-lint-ignore no-explicit-any
    const ajv = new (Ajv as any)({ strict: false });
    const validators = new Map(
      Object.entries(PARAMETERS).map(([name, schema]) => [name, ajv.compile(schema)]),
    );
    const server = await startServer({ device: "cpu", slots: CLIENTS });
    let [next, calls, cut, plain] = [0, 0, 0, 0];
    const began = performance.now();
    const client = async () => {
      while (next < ANSWERS) {
        const seed = next++;
        const messages = [{ role: "user", content: QUESTIONS[seed % QUESTIONS.length] }];
        const response = await fetch(`${server.url}/v1/chat/completions`, {
          method: "POST",
          body: JSON.stringify({ messages, tools, seed, temperature: 1, max_tokens: MAX_TOKENS }),
        });
        const body: Answer = await response.json();
        const about = `seed ${seed}: ${JSON.stringify(body)}`;
        equal(response.status, 200, about);
        const [{ finish_reason: reason, message }] = body.choices as [Answer["choices"][0]];
        const made = message.tool_calls ?? [];
        if (made.length === 0) plain++;
        for (const [index, { function: call }] of made.entries()) {
          // The limit may cut the last one, and then the answer says so.
          if (reason === "length" && index === made.length - 1) {
            cut++;
            continue;
          }
          calls++;
          ok(validators.get(call.name)!(JSON.parse(call.arguments)), about);
        }
        if (made.length > 0 && reason !== "length") equal(reason, "tool_calls", about);
      }
    };
    try {
      await Promise.all(Array.from({ length: CLIENTS }, client));
      const seconds = ((performance.now() - began) / 1_000).toFixed(0);
      console.log(`${calls} calls, ${cut} cut, ${plain} answers without one, in ${seconds} s`);
      ok(calls >= ANSWERS / 4, `only ${calls} calls`);
      ok(cut <= ANSWERS / 100, `${cut} calls were cut`);
    } finally {
      await server.stop();
    }
  },
});
