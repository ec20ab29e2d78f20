/** What /metrics says about what happened. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import type { Hono } from "hono";
import type { EngineState, EngineStats } from "../../runtime/engine/engine.ts";
import { EngineError, RateLimitError } from "../../runtime/errors.ts";
import { appOver, eventsOf, FakeEngine, post, type Script } from "./fake_engine.ts";
import { collectLog } from "./log_lines.ts";

const CHAT = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hello!" }];
const MODEL = 'model_name="kedge-tiny"';

/** Each sample's value by its name and labels. */
async function samplesOf(app: Hono, query = ""): Promise<Map<string, number>> {
  const response = await app.request(`/metrics${query}`);
  equal(response.status, 200);
  equal(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split("\n")) {
    if (line === "" || line.startsWith("# HELP ") || line.startsWith("# TYPE ")) continue;
    const parts = /^([a-z0-9_:]+(?:\{.*\})?) (\S+)$/.exec(line);
    ok(parts !== null, line);
    equal(samples.has(parts[1]!), false, line);
    samples.set(parts[1]!, Number(parts[2]));
  }
  return samples;
}

/** An engine whose numbers a test sets. */
class CountingEngine extends FakeEngine {
  override stats: EngineStats = {
    ...new FakeEngine().stats,
    running: 3,
    queued: 5,
    steps: 70,
    lastStepDispatches: 11,
    freeSlots: 1,
    freePages: 4,
    pages: 16,
    preemptions: 2,
    prefillStepMs: 1_500,
    decodeStepMs: 2_500,
    deviceWaitMs: 750,
  };
}

Deno.test("metrics: the engine's numbers as they are when asked for", async () => {
  const engine = new CountingEngine();
  const app = appOver(engine);
  const wanted = {
    [`vllm:num_requests_running{${MODEL}}`]: 3,
    [`vllm:num_requests_waiting{${MODEL}}`]: 5,
    [`vllm:kv_cache_usage_perc{${MODEL}}`]: 0.75,
    [`vllm:num_preemptions_total{${MODEL}}`]: 2,
    'kedge_slots{state="free"}': 1,
    'kedge_slots{state="used"}': 3,
    'kedge_pages{state="free"}': 4,
    'kedge_pages{state="used"}': 12,
    kedge_steps_total: 70,
    kedge_dispatches_last_step: 11,
    'kedge_step_seconds_total{phase="prefill"}': 1.5,
    'kedge_step_seconds_total{phase="decode"}': 2.5,
    kedge_device_wait_seconds_total: 0.75,
    kedge_engine_restarts_total: 0,
  };
  for (let round = 0; round < 2; round++) {
    const samples = await samplesOf(app);
    for (const [name, value] of Object.entries(wanted)) equal(samples.get(name), value, name);
  }
  engine.stats = { ...engine.stats, running: 0, steps: 9, pages: 0, freePages: 0 };
  const after = await samplesOf(app);
  equal(after.get(`vllm:num_requests_running{${MODEL}}`), 0);
  equal(after.get("kedge_steps_total"), 9);
  equal(after.get(`vllm:kv_cache_usage_perc{${MODEL}}`), 0);
  const states: EngineState[] = ["ready", "recovering", "draining", "failed"];
  for (const state of states) {
    engine.state = state;
    const samples = await samplesOf(app);
    const found = states.filter((each) => samples.get(`kedge_engine_state{state="${each}"}`) === 1);
    deepEqual(found, [state]);
  }
});

Deno.test("metrics: tokens and times of generations, streamed or whole", async () => {
  const engine = new FakeEngine();
  const app = appOver(engine);
  await (await post(app, CHAT, { messages })).json();
  await eventsOf(await post(app, CHAT, { messages, stream: true }));
  await (await post(app, CHAT, { messages, max_tokens: 2 })).json();
  const prompt = engine.requests[0]!.promptIds.length;
  const samples = await samplesOf(app);
  const value = (name: string) => samples.get(`vllm:${name}{${MODEL}}`);
  const generated = engine.delivered;
  equal(value("prompt_tokens_total"), 3 * prompt);
  equal(value("generation_tokens_total"), generated);
  const ended = (reason: string) =>
    samples.get(`vllm:request_success_total{${MODEL},finished_reason="${reason}"}`);
  deepEqual(["stop", "length", "abort", "error"].map(ended), [2, 1, undefined, undefined]);
  equal(value("time_to_first_token_seconds_count"), 3);
  equal(value("inter_token_latency_seconds_count"), generated - 3);
  equal(value("e2e_request_latency_seconds_count"), 3);
  equal(value("request_prompt_tokens_sum"), 3 * prompt);
  equal(value("request_generation_tokens_sum"), generated);
  const near = (found: number | undefined, wanted: number) =>
    ok(Math.abs(found! - wanted) < 1e-9, `wanted ${wanted}, found ${found}`);
  near(value("request_queue_time_seconds_sum"), 0.003);
  near(value("request_prefill_time_seconds_sum"), 0.06);
  near(value("request_decode_time_seconds_sum"), 0.12);
});

Deno.test("metrics: how generations end: stop string, client that leaves, failure", async () => {
  const endOf = async (script: Script, run: (app: Hono) => Promise<unknown>) => {
    const app = appOver(new FakeEngine(script));
    await run(app);
    const samples = [...await samplesOf(app)];
    const prefix = `vllm:request_success_total{${MODEL},finished_reason=`;
    return samples.filter(([name]) => name.startsWith(prefix))
      .map(([name, count]) => `${/"(\w+)"\}$/.exec(name)![1]} ${count}`);
  };
  const whole = (fields: object) => async (app: Hono) =>
    await (await post(app, CHAT, { messages, ...fields })).text();
  deepEqual(await endOf({ output: "one two three" }, whole({ stop: "two" })), ["stop 1"]);
  const error = { at: 1, value: new EngineError("run the request: wanted luck, found none") };
  deepEqual(await endOf({ error }, whole({})), ["error 1"]);
  deepEqual(await endOf({ error }, whole({ stream: true })), ["error 1"]);
  const leave = async (app: Hono) => {
    const response = await post(app, CHAT, { messages, stream: true });
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
  };
  deepEqual(await endOf({ output: "word ".repeat(50), tokenMs: 5 }, leave), ["abort 1"]);
});

Deno.test("metrics: refusals by their reason", async () => {
  const engine = new FakeEngine();
  const app = appOver(engine);
  engine.placesMax = 0;
  equal((await post(app, CHAT, { messages })).status, 503);
  engine.state = "draining";
  equal((await post(app, "/v1/completions", { prompt: "x" })).status, 503);
  engine.reserve = () => {
    throw new RateLimitError("queue the request: wanted fewer, found 3", 2);
  };
  const limited = await post(app, CHAT, { messages });
  equal(limited.status, 429);
  equal(limited.headers.get("retry-after"), "2");
  const samples = await samplesOf(app);
  for (const reason of ["queue_full", "draining", "key_limit"]) {
    equal(samples.get(`kedge_rejections_total{reason="${reason}"}`), 1, reason);
  }
});

Deno.test("metrics: HTTP requests by route; what clients make up gets no series", async () => {
  const app = appOver(new FakeEngine());
  await app.request("/v1/models/kedge-tiny");
  await app.request("/v1/models/canary");
  for (let count = 0; count < 5; count++) {
    await app.request(`/canary/${count}`);
    await app.request("/", { method: `CANARY${count}` });
  }
  const samples = await samplesOf(app);
  const http = [...samples].filter(([name]) => name.startsWith("http_requests_total"));
  deepEqual(http, [
    ['http_requests_total{route="/v1/models/:id",method="GET",status="200"}', 1],
    ['http_requests_total{route="/v1/models/:id",method="GET",status="404"}', 1],
    ['http_requests_total{route="none",method="GET",status="404"}', 5],
    ['http_requests_total{route="/",method="other",status="405"}', 5],
  ]);
  equal(samples.get('http_request_duration_seconds_count{route="none",method="GET"}'), 5);
  equal([...samples.keys()].some((name) => name.includes("canary")), false);
});

Deno.test("metrics: the use of experts on request only, of an engine that is there", async () => {
  const engine = new FakeEngine();
  engine.expertUse = () =>
    Promise.resolve({ expertCount: 2, tokens: Float64Array.of(3, 4, 5, 2 ** 40) });
  const app = appOver(engine);
  const expertsOf = async (query: string) =>
    [...await samplesOf(app, query)].filter(([name]) => name.startsWith("kedge_expert_tokens"));
  deepEqual(await expertsOf(""), []);
  deepEqual(await expertsOf("?experts=0"), []);
  deepEqual(await expertsOf("?experts=1"), [
    ['kedge_expert_tokens_total{layer="0",expert="0"}', 3],
    ['kedge_expert_tokens_total{layer="0",expert="1"}', 4],
    ['kedge_expert_tokens_total{layer="1",expert="0"}', 5],
    ['kedge_expert_tokens_total{layer="1",expert="1"}', 2 ** 40],
  ]);
  for (const state of ["recovering", "failed"] as const) {
    engine.state = state;
    deepEqual(await expertsOf("?experts=1"), []);
  }
});

Deno.test("log: one line a request, with ids and counts and nothing of the request", async () => {
  const lines = collectLog();
  const engine = new FakeEngine();
  const app = appOver(engine);
  const canary = { model: "kedge-tiny", messages: [{ role: "user", content: "canary" }] };
  const headers = { "x-request-id": "canary", "user-agent": "canary", referer: "canary" };
  const body = JSON.stringify({ ...canary, user: "canary" });
  const answer = await app.request(`${CHAT}?q=canary`, { method: "POST", body, headers });
  await answer.json();
  await app.request("/v1/models/canary", { headers });
  await app.request("/canary\n{}", { headers, method: "CANARY" });
  await app.request("/readyz");
  equal(JSON.stringify(lines).toLowerCase().includes("canary"), false);
  deepEqual(lines.map(({ level }) => level), ["INFO", "INFO", "INFO", "DEBUG"]);
  deepEqual(
    lines.map((
      { method, route, status, promptTokens, completionTokens },
    ) => [method, route, status, promptTokens, completionTokens]),
    [
      ["POST", CHAT, 200, engine.requests[0]!.promptIds.length, engine.delivered],
      ["GET", "/v1/models/:id", 404, null, null],
      ["other", "none", 404, null, null],
      ["GET", "/readyz", 200, null, null],
    ],
  );
  match(lines[0]!.id, /^req_[0-9a-f]{32}$/);
  equal(answer.headers.get("x-request-id"), lines[0]!.id);
  ok(lines[0]!.milliseconds >= 0 && lines[0]!.logger === "kedge.http");
});
