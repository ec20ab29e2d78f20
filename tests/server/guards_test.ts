/** Web pages at the door: Host, Origin, CORS. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { createApp } from "../../runtime/http/app.ts";
import { isLoopback, loopbackNames } from "../../runtime/http/guards.ts";
import { isOrigin } from "../../runtime/http/origin.ts";
import { createKey, hashKey } from "../../runtime/keys/api_key.ts";
import { KeyRing } from "../../runtime/keys/key_ring.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";
import { FakeEngine } from "./fake_engine.ts";

const PAGE = "https://chat.example";
const KEY = createKey();

function guarded(
  { local = true, origins = [] as string[], keys = false }: {
    local?: boolean;
    origins?: string[];
    keys?: boolean;
  } = {},
) {
  const deps = { engine: new FakeEngine(), tokenizer: tinyTokenizer, generation: tinyGeneration };
  const stored = { name: "a", scopes: ["infer" as const], limits: { requests: null }, created: "" };
  return createApp(deps, {
    keys: keys ? new KeyRing([{ ...stored, sha256: hashKey(KEY).toHex() }]) : null,
    names: local ? loopbackNames(["Kedge.local", "127.0.0.2"]) : null,
    origins,
  });
}

Deno.test("host: on loopback only this machine's names are answered", async () => {
  const app = guarded();
  for (
    const [host, status] of [
      ["localhost", 200],
      ["localhost:11500", 200],
      ["LOCALHOST:1", 200],
      ["127.0.0.1:80", 200],
      ["127.0.0.2", 200],
      ["[::1]", 200],
      ["[::1]:11500", 200],
      ["kedge.local:1", 200],
      ["evil.example", 403],
      ["evil.example:11500", 403],
      ["localhost.evil.example", 403],
      ["evil@localhost", 403],
      ["localhost:1:2", 403],
      ["localhost:", 403],
      ["127.0.0.1.nip.io", 403],
      ["192.168.1.7", 403],
      ["::1", 403],
      ["", 403],
      [" ", 403],
    ] as const
  ) {
    const response = await app.request("/v1/models", { headers: { host } });
    equal(response.status, status, host);
    if (status === 403) {
      const { error } = await response.json();
      deepEqual([error.type, error.code], ["permission_error", "forbidden_host"]);
      equal(error.message.includes("evil"), false);
    }
  }
  // Without the header the URL speaks; a foreign one is refused beside a good header too.
  for (const headers of [{}, { host: "localhost" }] as Record<string, string>[]) {
    const request = new Request("http://evil.example/health", { headers });
    equal((await app.fetch(request)).status, 403);
  }
  equal((await app.fetch(new Request("http://[::1]:9/health"))).status, 200);
  equal(
    (await guarded({ local: false }).fetch(new Request("http://evil.example/health"))).status,
    200,
  );
});

Deno.test("origin: pages of others are refused before anything is answered", async () => {
  const app = guarded({ origins: [PAGE] });
  for (
    const [origin, status] of [
      ["http://localhost:3000", 200],
      ["http://127.0.0.1", 200],
      ["https://[::1]:8443", 200],
      [PAGE, 200],
      ["https://chat.example:8443", 403],
      ["http://chat.example", 403],
      ["https://chat.example.evil.example", 403],
      ["https://evil.example", 403],
      ["http://localhost.evil.example", 403],
      ["http://evil@localhost", 403],
      ["null", 403],
      ["file://", 403],
      ["chrome-extension://localhost", 403],
    ] as const
  ) {
    const response = await app.request("/v1/models", { headers: { origin } });
    equal(response.status, status, origin);
    if (status === 403) equal((await response.json()).error.code, "forbidden_origin");
  }
});

Deno.test("cors: off unless asked for, and then for exactly those origins", async () => {
  const names = (response: Response) =>
    [...response.headers.keys()].filter((name) => name.startsWith("access-control-"));
  const preflight = {
    method: "OPTIONS",
    headers: {
      origin: PAGE,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type",
    },
  };
  const off = guarded({ local: false });
  equal((await off.request("/v1/chat/completions", preflight)).status, 405);
  for (const origin of [PAGE, "null", "http://localhost"]) {
    deepEqual(names(await off.request("/v1/models", { headers: { origin } })), []);
  }
  for (const local of [true, false]) {
    const on = guarded({ local, origins: [PAGE], keys: true });
    const answer = await on.request("/v1/chat/completions", preflight);
    equal(answer.status, 204);
    equal(answer.headers.get("access-control-allow-origin"), PAGE);
    equal(answer.headers.get("access-control-allow-headers"), "authorization,content-type");
    equal(answer.headers.get("access-control-allow-credentials"), null);
    // The page may read a refusal too, but gets no further without a key.
    const refused = await on.request("/v1/models", { headers: { origin: PAGE } });
    equal(refused.status, 401);
    equal(refused.headers.get("access-control-allow-origin"), PAGE);
    const headers = { origin: PAGE, authorization: `Bearer ${KEY}` };
    const models = await on.request("/v1/models", { headers });
    equal(models.status, 200);
    equal(models.headers.get("access-control-allow-origin"), PAGE);
    ok(models.headers.get("vary")?.toLowerCase().includes("origin"));
    const other = { ...preflight.headers, origin: "https://evil.example" };
    const denied = await on.request("/v1/models", { method: "OPTIONS", headers: other });
    equal(denied.status, local ? 403 : 401);
    deepEqual(names(denied), []);
  }
});

Deno.test("origins are taken as browsers send them, never as patterns", () => {
  for (const good of [PAGE, "http://localhost:3000", "https://[::1]:1", "app://obsidian.md"]) {
    ok(isOrigin(good), good);
  }
  for (
    const bad of ["*", "null", "", "chat.example", `${PAGE}/`, `${PAGE}/x`, "https://*.example"]
      .concat("HTTPS://chat.example", "https://Chat.example", "https://chat.example:443")
      .concat("https://a b", "https://a@b", "https://a?b", "https://")
  ) {
    ok(!isOrigin(bad), bad);
  }
});

Deno.test("loopback addresses are told from others", () => {
  for (const local of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]) ok(isLoopback(local));
  for (const other of ["0.0.0.0", "::", "10.0.0.1", "1127.0.0.1", "::ffff:10.0.0.1", "::11", ""]) {
    ok(!isLoopback(other), other);
  }
});
