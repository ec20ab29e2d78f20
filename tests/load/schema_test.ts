/**
 * 1,000 answers at temperature 1 under 40 schemas, each valid by another implementation of JSON
 * schema; and grammars at the limits of their size, after which the server goes on.
 */
import { equal, ok } from "node:assert/strict";
import Ajv from "ajv/dist/2020.js";
import { type RunningServer, startServer } from "../server/running.ts";
import { SCHEMAS } from "./schemas.ts";

const ANSWERS = 1_000;
const CLIENTS = 8;

async function ask({ url }: RunningServer, fields: object) {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    body: JSON.stringify({
      messages: [{ role: "user", content: "Describe a person as JSON." }],
      max_tokens: 900,
      temperature: 1,
      ...fields,
    }),
  });
  return { status: response.status, body: await response.json() };
}

Deno.test({
  name: `schemas: ${ANSWERS} answers under ${SCHEMAS.length} schemas are valid`,
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    // deno-lint-ignore no-explicit-any
    const ajv = new (Ajv as any)({ strict: false, validateFormats: false });
    // deno-lint-ignore no-explicit-any
    const validators = SCHEMAS.map((schema) => ajv.compile(schema) as any);
    const server = await startServer({ device: "cpu" });
    let next = 0;
    let tokens = 0;
    const began = performance.now();
    const client = async () => {
      while (next < ANSWERS) {
        const seed = next++;
        const at = seed % SCHEMAS.length;
        const json_schema = { name: "answer", schema: SCHEMAS[at] };
        const response_format = { type: "json_schema", json_schema };
        const { status, body } = await ask(server, { seed, response_format });
        const about = `seed ${seed}, schema ${at}: ${JSON.stringify(body)}`;
        equal(status, 200, about);
        const [choice] = body.choices;
        equal(choice.finish_reason, "stop", about);
        ok(validators[at](JSON.parse(choice.message.content)), about);
        tokens += body.usage.completion_tokens;
      }
    };
    try {
      await Promise.all(Array.from({ length: CLIENTS }, client));
      const seconds = (performance.now() - began) / 1_000;
      console.log(`${tokens} tokens in ${seconds.toFixed(0)} s, ${CLIENTS} at once`);
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name: "schemas: grammars as large as may be, and too large, leave the server as it was",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    const server = await startServer({ device: "cpu" });
    const properties = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, at) => [`p${at}`, {}]));
    const lines = (count: number) =>
      Array.from({ length: count }, (_, at) => `${at === 0 ? "start" : `r${at}`}: r${at + 1}`)
        .join("\n") + `\nr${count}: "x"`;
    const forms: [object, number | null][] = [
      [{ json_schema: { type: "object", properties: properties(2_040) } }, null],
      [{ json_schema: { type: "object", properties: properties(2_060) } }, 400],
      [{ structured_outputs: { grammar: lines(999) } }, 200],
      [{ structured_outputs: { grammar: lines(1_000) } }, 400],
      [{ structured_outputs: { regex: "(".repeat(100) + "a" + ")".repeat(100) } }, 200],
      [{ json_schema: { not: {} } }, 400],
    ];
    try {
      for (const [form, wanted] of forms) {
        const { status, body } = await ask(server, { ...form, max_tokens: 3 });
        const about = JSON.stringify(body);
        ok(wanted === null ? status === 200 || status === 400 : status === wanted, about);
      }
      equal(server.engine.restarts, 0, "a grammar is no reason to start again");
      equal((await ask(server, { max_tokens: 3 })).status, 200);
    } finally {
      await server.stop();
    }
  },
});
