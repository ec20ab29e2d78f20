/** What is not a generation: bodies, paths, methods, models, tokens, health. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { MAX_BODY_BYTES, MAX_BODY_DEPTH_LEVELS } from "../../runtime/limits.ts";
import { tinyGeneration, tinySpecials, tinyTokenizer } from "../tools/tiny_text.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";

const app = appOver(new FakeEngine());

async function errorOf(response: Response, status: number) {
  equal(response.status, status);
  const body = await response.json();
  deepEqual(Object.keys(body), ["error"]);
  deepEqual(Object.keys(body.error), ["message", "type", "param", "code"]);
  ok(/^[^\n]+: wanted [^\n]+, found [^\n]+$|^find route/.test(body.error.message));
  return body.error;
}

const CHAT = "/v1/chat/completions";

Deno.test("body: what is not one JSON object is refused without quoting it", async () => {
  const bodies = ["", " \n", "canary", '{"canary": }', "[1]", "null", "7", '"canary"', '{"a":1}x'];
  for (const body of bodies) {
    const error = await errorOf(await post(app, CHAT, body), 400);
    equal(error.message.includes("canary"), false);
  }
  const broken = await app.request(CHAT, { method: "POST", body: Uint8Array.of(0x7b, 0xff, 0x7d) });
  ok((await errorOf(broken, 400)).message.includes("UTF-8"));
});

Deno.test("body: size is bounded by its declared and by its real length", async () => {
  const fits = `{"messages":[{"role":"user","content":"x"}],"ignored":"`;
  const body = fits + "x".repeat(MAX_BODY_BYTES - fits.length - 2) + '"}';
  equal((await post(app, CHAT, body)).status, 200);
  await errorOf(await post(app, CHAT, body + " "), 413);
  const declared = new Request("http://localhost" + CHAT, {
    method: "POST",
    body: "{}",
    headers: { "content-length": `${MAX_BODY_BYTES + 1}` },
  });
  await errorOf(await app.fetch(declared.clone()), 413);
  // Not 503, as the body would never be let in.
  const full = new FakeEngine();
  full.placesMax = 0;
  await errorOf(await appOver(full).fetch(declared), 413);
});

Deno.test("body: depth is bounded before parsing, brackets in strings do not count", async () => {
  const nested = (levels: number) =>
    `{"messages":[{"role":"user","content":"x"}],"a":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  equal((await post(app, CHAT, nested(MAX_BODY_DEPTH_LEVELS - 1))).status, 200);
  await errorOf(await post(app, CHAT, nested(MAX_BODY_DEPTH_LEVELS)), 400);
  await errorOf(await post(app, CHAT, "[".repeat(1_000_000)), 400);
  const text = { messages: [{ role: "user", content: '\\"[{'.repeat(100) }] };
  equal((await post(app, CHAT, text)).status, 200);
});

Deno.test("body: a content encoding is refused, identity is none", async () => {
  const body = JSON.stringify({ messages: [{ role: "user", content: "x" }] });
  for (const [encoding, status] of [["gzip", 415], ["br", 415], ["identity", 200]] as const) {
    const headers = { "content-encoding": encoding };
    const response = await app.request(CHAT, { method: "POST", body, headers });
    if (status === 200) equal(response.status, 200);
    else await errorOf(response, status);
  }
});

Deno.test("routes: unknown paths and wrong methods are error objects", async () => {
  for (const path of ["/v1", "/v1/chat", "/v1/rerank", "/v1/models/a/b", "/%00", "/canary"]) {
    const error = await errorOf(await app.request(path), 404);
    equal(error.message.includes("canary"), false);
  }
  for (const path of [CHAT, "/v1/completions", "/tokenize", "/detokenize", "/apply-template"]) {
    const response = await app.request(path);
    equal(response.headers.get("allow"), "POST");
    await errorOf(response, 405);
  }
  const readable = ["/", "/health", "/livez", "/readyz", "/metrics", "/v1/models"];
  for (const path of [...readable, "/v1/models/kedge-tiny"]) {
    for (const method of ["POST", "DELETE", "PUT", "OPTIONS"]) {
      const response = await app.request(path, { method });
      equal(response.headers.get("allow"), "GET, HEAD");
      await errorOf(response, 405);
    }
    equal((await app.request(path, { method: "HEAD" })).status, 200);
  }
});

Deno.test("models: the list, one, and others that are not there", async () => {
  const { object, data } = await (await app.request("/v1/models")).json();
  equal(object, "list");
  equal(data.length, 1);
  equal(data[0].id, "kedge-tiny");
  equal(data[0].object, "model");
  equal(data[0].max_model_len, 8192);
  deepEqual(await (await app.request("/v1/models/kedge-tiny")).json(), data[0]);
  equal((await errorOf(await app.request("/v1/models/gpt"), 404)).code, "model_not_found");
  const messages = [{ role: "user", content: "x" }];
  for (const model of ["kedge-tiny", null, undefined]) {
    equal((await post(app, CHAT, { model, messages })).status, 200);
  }
  for (const model of ["canary", ""]) {
    const error = await errorOf(await post(app, CHAT, { model, messages }), 404);
    equal(error.code, "model_not_found");
    equal(error.message.includes("canary"), false);
  }
});

Deno.test("probes: what each says in each state of the engine", async () => {
  const engine = new FakeEngine();
  const own = appOver(engine);
  for (
    const [state, health, life, readiness] of [
      ["ready", 200, 200, 200],
      ["recovering", 503, 200, 503],
      ["draining", 503, 200, 503],
      ["failed", 503, 503, 503],
    ] as const
  ) {
    engine.state = state;
    for (
      const [path, status] of [["/health", health], ["/livez", life], [
        "/readyz",
        readiness,
      ]] as const
    ) {
      const response = await own.request(path);
      equal(response.status, status, `${path} ${state}`);
      const body = await response.json();
      if (path !== "/health") deepEqual(body, { status: state });
      else if (status === 200) deepEqual(body, { status: "ok" });
      else deepEqual([body.error.code, body.error.type], [503, "unavailable_error"]);
      const head = await own.request(path, { method: "HEAD" });
      deepEqual([head.status, await head.text()], [status, ""]);
    }
  }
  engine.state = "ready";
  engine.failure = new Error("lost");
  for (const path of ["/health", "/livez", "/readyz"]) {
    equal((await own.request(path)).status, 503, path);
  }
});

Deno.test("tokenize: both spellings, one answer", async () => {
  const text = "Hello <|im_end|> 🙂";
  const ids = Array.from(tinyTokenizer.encode(text));
  for (const body of [{ prompt: text }, { content: text, add_special: true }]) {
    const answer = await (await post(app, "/tokenize", body)).json();
    deepEqual(answer, { tokens: ids, count: ids.length, max_model_len: 8192 });
  }
  const special = await (await post(app, "/tokenize", { content: text, parse_special: true }))
    .json();
  deepEqual(special.tokens, Array.from(tinyTokenizer.encode(text, true)));
  ok(special.tokens.includes(tinySpecials.find(({ text }) => text === "<|im_end|>")!.id));
  deepEqual((await (await post(app, "/tokenize", { prompt: "" })).json()).tokens, []);
});

Deno.test("tokenize: pieces and strings of tokens that are no whole characters", async () => {
  const body = { content: "a🙂", with_pieces: true, return_token_strs: true };
  const { tokens, token_strs } = await (await post(app, "/tokenize", body)).json();
  const encoder = new TextEncoder();
  const bytes = tokens.flatMap(({ piece }: { piece: string | number[] }) =>
    typeof piece === "string" ? Array.from(encoder.encode(piece)) : piece
  );
  equal(new TextDecoder().decode(Uint8Array.from(bytes)), "a🙂");
  equal(token_strs.length, tokens.length);
  equal(token_strs[0], "a");
  ok(token_strs[1].startsWith("bytes:\\xf0"));
});

Deno.test("tokenize: messages give the ids of a chat", async () => {
  const messages = [{ role: "user", content: "Hello!" }];
  const ids = [3843, 300, 3857, 1208, 33, 3842];
  const closed = await post(app, "/tokenize", { messages, add_generation_prompt: false });
  deepEqual((await closed.json()).tokens, ids);
  const open = await post(app, "/tokenize", { messages });
  deepEqual((await open.json()).tokens, [...ids, 3844, 298, 3857]);
});

Deno.test("detokenize: text of ids, specials shown; ids that are none refused", async () => {
  const text = "Grüße 🙂";
  const tokens = [...tinyTokenizer.encode(text), 3842];
  const answer = await (await post(app, "/detokenize", { tokens })).json();
  deepEqual(answer, { prompt: `${text}<|im_end|>`, content: `${text}<|im_end|>` });
  equal((await (await post(app, "/detokenize", { tokens: [] })).json()).content, "");
  for (const bad of [[4096], [-1], [0.5], ["1"], [null], "1", null, undefined, [[1]]]) {
    const error = await errorOf(await post(app, "/detokenize", { tokens: bad }), 400);
    ok(error.param.startsWith("tokens"));
  }
});

Deno.test("tokenize: exactly one of its three inputs", async () => {
  await errorOf(await post(app, "/tokenize", {}), 400);
  await errorOf(await post(app, "/tokenize", { prompt: "a", content: "a" }), 400);
  await errorOf(await post(app, "/tokenize", { prompt: 7 }), 400);
});

Deno.test("apply-template: the prompt that /tokenize makes ids of", async () => {
  const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: "Hi <b>" }];
  const { prompt } = await (await post(app, "/apply-template", { messages })).json();
  ok(prompt.includes("Be brief.") && prompt.includes("Hi <b>"));
  const whole = await (await post(app, "/tokenize", { messages })).json();
  const same = await (await post(app, "/tokenize", { prompt, parse_special: true })).json();
  deepEqual(same.tokens, whole.tokens);
  await errorOf(await post(app, "/apply-template", {}), 400);
  await errorOf(await post(app, "/apply-template", { messages, model: "canary" }), 404);
});

Deno.test("props: defaults, slots and device", async () => {
  const props = await (await app.request("/props")).json();
  equal(props.model_alias, "kedge-tiny");
  equal(props.total_slots, 4);
  equal(props.default_generation_settings.n_ctx, 8192);
  equal(props.default_generation_settings.params.temperature, tinyGeneration.temperature);
});

Deno.test("embeddings: refused, as the model was not trained for them", async () => {
  const error = await errorOf(await post(app, "/v1/embeddings", { input: "x" }), 501);
  equal(error.code, "unsupported_model");
});

Deno.test("answers name the seed that was used, whoever chose it", async () => {
  const engine = new FakeEngine();
  const seeded = appOver(engine);
  const messages = [{ role: "user", content: "x" }];
  for (
    const [path, fields] of [[CHAT, { messages }], ["/v1/completions", { prompt: ["a", "b"] }]]
  ) {
    for (const seed of [7, null]) {
      const before = engine.requests.length;
      const response = await post(seeded, path as string, { ...fields as object, seed });
      const { seed: named } = await response.json();
      for (const { sampling } of engine.requests.slice(before)) equal(sampling.seed, named);
      if (seed !== null) equal(named, seed);
      ok(engine.requests.length > before);
    }
  }
});
