/**
 * What a JSON schema costs a batch: tokens a second of eight clients through HTTP, free and with a
 * schema, in turns.
 *
 *     deno run -A tests/bench/structured_bench.ts [cpu | webgpu]
 */
import { startServer } from "../server/running.ts";

const CLIENTS = 8;
const ROUNDS = 5;
const MAX_TOKENS = 200;
const text = (maxLength: number) => ({ type: "string", maxLength });
const person = {
  type: "object",
  properties: {
    name: text(20),
    age: { type: "integer", minimum: 0, maximum: 120 },
    note: text(60),
  },
  required: ["name", "age", "note"],
  additionalProperties: false,
};
const schema = { type: "array", items: person, minItems: 20 };
const response_format = { type: "json_schema", json_schema: { name: "people", schema } };

const device = Deno.args[0] === "webgpu" ? "webgpu" : "cpu";
const server = await startServer({ device, slots: CLIENTS });

/** Tokens a second of all clients together. */
async function measure(fields: object): Promise<number> {
  const began = performance.now();
  const counts = await Promise.all(Array.from({ length: CLIENTS }, async (_, seed) => {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      body: JSON.stringify({ prompt: "Once", max_tokens: MAX_TOKENS, seed, ...fields }),
    });
    return (await response.json()).usage.completion_tokens as number;
  }));
  return counts.reduce((sum, count) => sum + count, 0) / (performance.now() - began) * 1000;
}

await measure({ ignore_eos: true });
await measure({ response_format });
console.log("free tokens/s  with a schema  ratio");
for (let round = 0; round < ROUNDS; round++) {
  const free = await measure({ ignore_eos: true });
  const held = await measure({ response_format });
  console.log(
    free.toFixed(0).padStart(13) + held.toFixed(0).padStart(15) +
      (held / free).toFixed(2).padStart(7),
  );
}
await server.stop();
Deno.exit(0);
