/** The OpenAPI document and its page; that answers are as it says, all server tests check. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { createApp } from "../../runtime/http/app.ts";
import { apiDocument } from "../../runtime/http/document.ts";
import { createKey, hashKey } from "../../runtime/keys/api_key.ts";
import { KeyRing } from "../../runtime/keys/key_ring.ts";
import { tinyGeneration, tinyTokenizer, tinyVocabularySize } from "../tools/tiny_text.ts";
import { document, mismatch } from "./checked_app.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";

const app = appOver(new FakeEngine());

// deno-lint-ignore no-explicit-any
type Json = any;

/** Every object of the document, and the objects in it. */
function* objectsOf(value: unknown): Generator<Json> {
  if (typeof value !== "object" || value === null) return;
  yield value;
  for (const each of Object.values(value)) yield* objectsOf(each);
}

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    path,
    method,
    operation: operation as Json,
  }))
);

Deno.test("openapi: every route is in the document, and no other", () => {
  const routes = app.routes.filter(({ method }) => method !== "ALL").map(({ method, path }) =>
    `${method.toLowerCase()} ${path.replace(/:(\w+)/g, "{$1}")}`
  );
  ok(routes.length > 20);
  deepEqual(operations.map(({ method, path }) => `${method} ${path}`).sort(), routes.sort());
});

Deno.test("openapi: the document is served, for this model and these keys", async () => {
  const served = await (await app.request("/openapi.json")).json();
  deepEqual(served, JSON.parse(JSON.stringify(document)));
  equal(served.openapi, "3.1.0");
  equal(served.components.schemas.DetokenizeRequest.properties.tokens.items.maximum, 4095);
  const keyed = apiDocument(tinyVocabularySize, true);
  for (const { path, method } of operations) {
    const { security, responses } = keyed.paths[path]![method] as Json;
    const isProbe = ["/health", "/livez", "/readyz"].includes(path);
    deepEqual(security, isProbe ? [] : [{ bearer: [] }, { header: [] }]);
    equal("401" in responses, !isProbe);
    deepEqual((document.paths[path]![method] as Json).security, []);
  }
});

Deno.test("openapi: references lead somewhere, ids are unique, nothing is left undescribed", () => {
  const names = new Set<string>();
  for (const { $ref } of objectsOf(document)) {
    if (typeof $ref !== "string") continue;
    names.add($ref.slice("#/components/schemas/".length));
    equal(mismatch($ref, null)?.startsWith("wanted a schema"), false, $ref);
  }
  deepEqual([...names].sort(), Object.keys(document.components.schemas).sort());
  const ids = operations.map(({ operation }) => operation.operationId);
  equal(new Set(ids).size, ids.length);
  for (const { operation } of operations) {
    for (const response of Object.values<Json>(operation.responses)) ok(response.description);
  }
  // A check in code without a shape would be a schema that takes anything.
  for (const [name, { properties }] of Object.entries<Json>(document.components.schemas)) {
    if (!name.endsWith("Request")) continue;
    for (const [field, schema] of Object.entries<Json>(properties)) {
      const { description: _, ...rest } = schema;
      ok(Object.keys(rest).length > 0, `${name}.${field}`);
      for (const part of schema.anyOf ?? []) ok(Object.keys(part).length > 0, `${name}.${field}`);
    }
  }
});

Deno.test("openapi: the examples are taken by the document and by the server", async () => {
  for (const { path, operation } of operations) {
    if (operation.requestBody === undefined) continue;
    const { schema, example } = operation.requestBody.content["application/json"];
    equal(mismatch(schema.$ref, example), null, path);
    const response = await post(app, path, example);
    equal(response.status, 200, path);
    await response.text();
  }
});

Deno.test("openapi: what the document does not take the server refuses", async () => {
  const wrong: [string, string, Json][] = [
    ["/v1/chat/completions", "ChatRequest", { stop: ["x".repeat(257)] }],
    ["/v1/chat/completions", "ChatRequest", { logit_bias: { x: 1 } }],
    ["/v1/chat/completions", "ChatRequest", { logit_bias: [[1, true]] }],
    ["/v1/chat/completions", "ChatRequest", { tools: [{ type: "function" }] }],
    ["/v1/chat/completions", "ChatRequest", { json_schema: 7 }],
    ["/v1/chat/completions", "ChatRequest", { xtc_probability: 0.5 }],
    ["/v1/chat/completions", "ChatRequest", { bad_words: ["x"] }],
    ["/v1/completions", "CompletionRequest", { prompt: [[4096]] }],
    ["/v1/completions", "CompletionRequest", { suffix: "x" }],
    ["/v1/responses", "ResponsesRequest", { input: [{ type: "function_call" }] }],
    ["/v1/messages", "MessagesRequest", { system: [{ type: "image" }] }],
    ["/v1/messages", "MessagesRequest", { mcp_servers: ["x"] }],
    ["/api/chat", "OllamaChatRequest", { options: { temperature: 3 } }],
    ["/api/chat", "OllamaChatRequest", { model: 7, messages: [] }],
    ["/api/generate", "OllamaGenerateRequest", { system: 7 }],
    ["/api/generate", "OllamaGenerateRequest", { format: "xml" }],
    ["/api/show", "OllamaShowRequest", { model: "kedge-tiny", name: 7 }],
    ["/tokenize", "TokenizeRequest", { add_generation_prompt: 1 }],
    ["/detokenize", "DetokenizeRequest", { tokens: [-1] }],
    ["/apply-template", "TemplateRequest", { messages: [{ role: "nobody" }] }],
  ];
  for (const [path, name, fields] of wrong) {
    const { example } = (document.paths[path] as Json).post.requestBody.content["application/json"];
    const body = { ...example, ...fields };
    ok(mismatch(`#/components/schemas/${name}`, body), `${path} ${JSON.stringify(fields)}`);
    equal((await post(app, path, body)).status, 400, `${path} ${JSON.stringify(fields)}`);
  }
});

Deno.test("docs: the page shows every route and schema, and loads nothing", async () => {
  const response = await app.request("/docs");
  equal(response.headers.get("content-type"), "text/html; charset=utf-8");
  const page = await response.text();
  for (const { path } of operations) ok(page.includes(`<code>${path}</code>`), path);
  const ids = new Set(Array.from(page.matchAll(/ id="([^"]+)"/g), ([, id]) => id));
  for (const name of Object.keys(document.components.schemas)) ok(ids.has(`schema-${name}`), name);
  // Links lead within the page, or to the document beside it.
  const links = Array.from(page.matchAll(/(?:href|src|action)="([^"]*)"/g), ([, link]) => link!);
  ok(links.length > 100);
  for (const link of links) {
    if (link.startsWith("#")) ok(ids.has(link.slice(1)), link);
    else equal((await app.request(`/${link}`)).status, 200, link);
  }
  equal(/<(script|link|img|iframe|base)\b|@import|url\(/.test(page), false);
  const policy = response.headers.get("content-security-policy")!;
  const style = /<style>([^<]*)<\/style>/.exec(page)![1]!;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style));
  const hash = new Uint8Array(digest).toBase64();
  match(policy, /^default-src 'none'; /);
  ok(policy.includes(`style-src 'sha256-${hash}';`), policy);
  equal(response.headers.get("x-content-type-options"), "nosniff");
});

Deno.test("docs: page and document need a key where the server asks for one", async () => {
  const key = createKey();
  const stored = {
    name: "a",
    sha256: hashKey(key).toHex(),
    scopes: ["infer" as const],
    limits: { requests: null },
    created: "2026-01-01T00:00:00Z",
  };
  const deps = {
    engine: new FakeEngine(),
    tokenizer: tinyTokenizer,
    generation: tinyGeneration,
  };
  const door = { keys: new KeyRing([stored]), names: null, origins: [] };
  const keyed = createApp(deps, door);
  for (const path of ["/openapi.json", "/docs"]) {
    equal((await keyed.request(path)).status, 401);
    const headers = { authorization: `Bearer ${key}` };
    const response = await keyed.request(path, { headers });
    equal(response.status, 200);
    ok((await response.text()).includes(path === "/docs" ? "Needs an API key" : '"401"'));
  }
});

Deno.test("errors have the dialect of their path, whoever refuses", async () => {
  for (
    const [path, keys] of [
      ["/v1/messages", ["type", "error"]],
      ["/v1/messages/none", ["type", "error"]],
      ["/v1/messagesx", ["error"]],
    ] as const
  ) {
    deepEqual(Object.keys(await (await app.request(path)).json()), keys);
  }
  for (const path of ["/api/none", "/api/chat"]) {
    equal(typeof (await (await app.request(path)).json()).error, "string");
  }
});
