/** Keys at the door: nothing but the probes is answered without one. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import type { Hono } from "hono";
import type { OwnerLimits, Place } from "../../runtime/engine/engine.ts";
import { createApp } from "../../runtime/http/app.ts";
import { PUBLIC_PATHS } from "../../runtime/http/auth.ts";
import { createKey, hashKey, type StoredKey } from "../../runtime/keys/api_key.ts";
import { KeyRing } from "../../runtime/keys/key_ring.ts";
import type { Scope } from "../../runtime/keys/scope.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";
import { FakeEngine } from "./fake_engine.ts";
import { collectLog } from "./log_lines.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"];

function storedKey(name: string, key: string, scopes: Scope[], requests: number | null = null) {
  const sha256 = hashKey(key).toHex();
  return { name, sha256, scopes, limits: { requests }, created: "2026-01-01T00:00:00Z" };
}

/** Remembers what limits requests came with. */
class LimitsEngine extends FakeEngine {
  readonly limits: OwnerLimits[] = [];

  override reserve(owner: string, limits: OwnerLimits, promptTokens: number): Place {
    this.limits.push(limits);
    return super.reserve(owner, limits, promptTokens);
  }
}

function guarded(...keys: StoredKey[]) {
  const engine = new LimitsEngine();
  const ring = new KeyRing(keys);
  const deps = { engine, tokenizer: tinyTokenizer, generation: tinyGeneration };
  return { engine, ring, app: createApp(deps, { keys: ring, names: null, origins: [] }) };
}

const chatBody = JSON.stringify({ messages: [{ role: "user", content: "Hello!" }] });

async function chat(app: Hono, headers: Record<string, string>): Promise<number> {
  const request = { method: "POST", body: chatBody, headers };
  return (await app.request("/v1/chat/completions", request)).status;
}

Deno.test("auth: every route and method but the probes answers 401 without a key", async () => {
  const { app, engine } = guarded(storedKey("a", createKey(), ["admin"]));
  const patterns = new Set(app.routes.map(({ path }) => path));
  ok(patterns.size > 10, `${[...patterns]}`);
  const known = [...patterns].filter((path) => !path.includes("*"))
    .map((path) => path.replace(/:\w+/g, "kedge-tiny"));
  // What does not exist, and what only resembles a probe.
  const others = [
    "/nope",
    "/v1",
    "/health/",
    "//health",
    "/Health",
    "/health%2f",
    "/livez/x",
    "/%00",
  ];
  const closed = [...known, ...others].filter((path) => !PUBLIC_PATHS.has(path));
  ok(closed.includes("/v1/chat/completions") && closed.includes("/metrics"));
  for (const path of closed) {
    for (const method of METHODS) {
      const response = await app.request(path, { method });
      equal(response.status, 401, `${method} ${path}`);
      equal(response.headers.get("www-authenticate"), 'Bearer realm="kedge"');
      equal(response.headers.get("allow"), null);
      if (method === "HEAD") continue;
      const { error } = await response.json();
      // Ollama's clients read a text, Anthropic's no code.
      match(error.message ?? error, /^read API key: wanted a known one/);
      if (error.code) {
        deepEqual([error.type, error.code], ["authentication_error", "invalid_api_key"]);
      }
    }
  }
  equal(engine.reserved.length, 0);
  deepEqual([...PUBLIC_PATHS], ["/health", "/livez", "/readyz"]);
  for (const path of PUBLIC_PATHS) {
    for (const method of ["GET", "HEAD"]) {
      equal((await app.request(path, { method })).status, 200, `${method} ${path}`);
    }
  }
});

Deno.test("auth: a body without a key is not read", async () => {
  const { app } = guarded(storedKey("a", createKey(), ["admin"]));
  const body = new ReadableStream<Uint8Array>({
    pull() {
      throw new Error("the body was read");
    },
  }, { highWaterMark: 0 });
  const init = { method: "POST", body, duplex: "half" } as RequestInit;
  equal((await app.request("/v1/completions", init)).status, 401);
});

Deno.test("auth: the key comes as bearer or as x-api-key, and as it is", async () => {
  const key = createKey();
  const { app } = guarded(storedKey("a", createKey(), ["infer"]), storedKey("b", key, ["infer"]));
  for (
    const headers of [
      { authorization: `Bearer ${key}` },
      { authorization: `bearer  ${key} ` },
      { "x-api-key": key },
      { authorization: "Basic YTpi", "x-api-key": key },
    ] as Record<string, string>[]
  ) {
    equal(await chat(app, headers), 200, JSON.stringify(headers));
  }
  for (
    const headers of [
      { authorization: key },
      { authorization: `Bearer ${key.slice(0, -1)}` },
      { authorization: `Bearer ${key}a` },
      { authorization: `Bearer ${key.toUpperCase()}` },
      { authorization: "Bearer " },
      { authorization: `Basic ${key}` },
      { "x-api-key": "" },
      { "x-api-key": hashKey(key).toHex() },
      { "api-key": key },
      { cookie: `authorization=${key}` },
    ] as Record<string, string>[]
  ) {
    equal(await chat(app, headers), 401, JSON.stringify(headers));
  }
  equal((await app.request(`/v1/models?key=${key}&api_key=${key}`)).status, 401);
});

Deno.test("auth: a key opens what its scope names, and admin everything", async () => {
  const keys = { infer: createKey(), metrics: createKey(), admin: createKey() };
  const { app } = guarded(
    storedKey("infer", keys.infer, ["infer"]),
    storedKey("metrics", keys.metrics, ["metrics"]),
    storedKey("admin", keys.admin, ["admin"]),
  );
  for (
    const [path, infer, metrics, admin] of [
      ["/v1/models", 200, 403, 200],
      ["/", 200, 403, 200],
      ["/metrics", 403, 200, 200],
      ["/nope", 404, 403, 404],
      ["/tokenize", 405, 403, 405],
    ] as const
  ) {
    const statuses = [];
    for (const key of [keys.infer, keys.metrics, keys.admin]) {
      statuses.push((await app.request(path, { headers: { "x-api-key": key } })).status);
    }
    deepEqual(statuses, [infer, metrics, admin], path);
  }
  const refused = await app.request("/metrics", { headers: { "x-api-key": keys.infer } });
  const { error } = await refused.json();
  deepEqual([error.type, error.code], ["permission_error", "insufficient_scope"]);
});

Deno.test("auth: name and limits of the key reach the engine, the name alone the log", async () => {
  const key = createKey();
  const { app, engine } = guarded(storedKey("kitchen", key, ["infer"], 3));
  const lines = collectLog();
  equal(await chat(app, { "x-api-key": key }), 200);
  equal(engine.reserved[0]!.owner, "kitchen");
  deepEqual(engine.limits[0], { requests: 3 });
  equal(engine.requests[0]!.owner, "kitchen");
  equal(engine.places, 0);
  deepEqual(lines.map((line) => line.key), ["kitchen"]);
  equal(JSON.stringify(lines).includes(key), false);
});

Deno.test("auth: replaced keys count from the next request on", async () => {
  const [before, after] = [createKey(), createKey()];
  const { app, ring } = guarded(storedKey("a", before, ["infer"]));
  ring.replace([storedKey("a", after, ["infer"])]);
  equal(await chat(app, { "x-api-key": before }), 401);
  equal(await chat(app, { "x-api-key": after }), 200);
  ring.replace([]);
  equal(await chat(app, { "x-api-key": after }), 401);
});
