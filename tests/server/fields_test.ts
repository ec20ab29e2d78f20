/** The tables of docs/api.md hold every field of the schemas, and say of it what is done. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { document } from "./checked_app.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";

const text = await Deno.readTextFile(new URL("../../docs/api.md", import.meta.url));

// deno-lint-ignore no-explicit-any
type Json = any;

const { schemas } = document.components as Json;
const CHAT = schemas.ChatRequest.properties;
const COMPLETION = schemas.CompletionRequest.properties;
const GENERATE = schemas.OllamaGenerateRequest.properties;
const OLLAMA_CHAT = schemas.OllamaChatRequest.properties;
const OLLAMA_MESSAGE = OLLAMA_CHAT.messages.anyOf[0].items.properties;

/** Fields of the bodies that a table's second column names. */
const PLACES: Readonly<Record<string, readonly Json[]>> = {
  OpenAI: [CHAT, COMPLETION],
  chat: [CHAT],
  completions: [COMPLETION],
  responses: [schemas.ResponsesRequest.properties],
  messages: [schemas.MessagesRequest.properties, schemas.CountTokensRequest.properties],
  Ollama: [GENERATE, OLLAMA_MESSAGE],
  "`/api/generate`": [GENERATE],
};
const PATHS: Readonly<Record<string, readonly string[]>> = {
  OpenAI: ["/v1/chat/completions", "/v1/completions"],
  responses: ["/v1/responses"],
  messages: ["/v1/messages", "/v1/messages/count_tokens"],
  Ollama: ["/api/chat", "/api/generate"],
};

const quoted = (cell: string) => Array.from(cell.matchAll(/`([^`]+)`/g), ([, name]) => name!);

/** Rows of the table that follows `heading`, as cells. */
function tableAfter(heading: string): string[][] {
  const at = text.indexOf(heading);
  ok(at >= 0, heading);
  const [table] = text.slice(text.indexOf("\n|", at)).trimStart().split("\n\n");
  return table!.split("\n").slice(2).map((row) =>
    row.split("|").slice(1, -1).map((cell) => cell.trim())
  );
}

const rows = tableAfter("## Refused and ignored fields").map(([fields, place, what]) => ({
  names: quoted(fields!),
  place: place!,
  what: what!,
}));

const isRefused = ({ description }: Json) => description?.startsWith("Refused: ") === true;

Deno.test("fields: what the table says to be refused is, but for the values that it names", () => {
  const listed = new Set<Json>();
  for (const { names, place, what } of rows) {
    if (what === "ignored") continue;
    ok(what.startsWith("refused"), what);
    const wanted = [...quoted(what), "no value"].join(" or ");
    for (const name of names) {
      for (const properties of PLACES[place]!) {
        const field = properties[name];
        ok(field && isRefused(field), `${name} of ${place}`);
        const words = field.description.slice("Refused: wanted ".length);
        equal(words.replace(/: .*/, ""), wanted, name);
        listed.add(field);
      }
    }
  }
  for (const properties of Object.values(PLACES).flat()) {
    for (const [name, field] of Object.entries<Json>(properties)) {
      ok(!isRefused(field) || listed.has(field), `${name} is refused, but not in the table`);
    }
  }
});

Deno.test("fields: what the table says to be ignored is, whatever its value", async () => {
  const app = appOver(new FakeEngine());
  for (const { names, place, what } of rows) {
    if (what !== "ignored") continue;
    for (const path of PATHS[place]!) {
      const { content } = (document.paths[path] as Json).post.requestBody;
      const { example, schema } = content["application/json"];
      const { properties } = schemas[schema.$ref.split("/").at(-1)];
      deepEqual(names.filter((name) => Object.hasOwn(properties, name)), [], path);
      for (const odd of [true, "odd", { odd: [] }]) {
        const fields = Object.fromEntries(names.map((name) => [name, odd]));
        const response = await post(app, path, { ...example, ...fields });
        equal(response.status, 200, `${path} ${names}`);
        await response.text();
      }
    }
  }
});

Deno.test("fields: the tables of supported fields hold all of them, and no other", () => {
  const namesIn = (heading: string) =>
    tableAfter(heading).flatMap(([cell]) => quoted(cell!)).map((name) => name.split(".")[0]!);
  const shared = namesIn("**Supported by `/v1/chat/completions` and `/v1/completions`**");
  for (
    const [properties, heading] of [
      [CHAT, "**Supported by `/v1/chat/completions` alone**"],
      [COMPLETION, "**Supported by `/v1/completions` alone**"],
    ]
  ) {
    const supported = Object.entries(properties).filter(([, field]) => !isRefused(field));
    const wanted = supported.map(([name]) => name).sort();
    const listed = new Set([...shared, ...namesIn(heading)]);
    // Refused but for the values that ask for nothing.
    for (const name of ["best_of", "suffix"]) listed.delete(name);
    deepEqual([...listed].sort(), wanted);
  }
});

Deno.test("fields: each dialect's section names all its fields", () => {
  for (
    const [heading, bodies] of [
      ["## Responses", PLACES.responses!],
      ["## Anthropic", PLACES.messages!],
      ["## Ollama", [OLLAMA_CHAT, GENERATE, OLLAMA_CHAT.options.anyOf[0].properties]],
    ] as const
  ) {
    const [section] = text.slice(text.indexOf(`${heading}\n`) + heading.length).split("\n## ");
    const named = new Set(quoted(section!).map((name) => name.split(".")[0]!));
    for (const properties of bodies) {
      const fields = Object.entries<Json>(properties).filter(([, field]) => !isRefused(field));
      for (const [name] of fields) ok(named.has(name), `${heading} ${name}`);
    }
  }
});
