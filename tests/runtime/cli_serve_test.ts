/** `kedge serve` from its command to its end. */
import assert from "node:assert";
import { kedge, kedgeCommand } from "../tools/kedge.ts";

/** The promise is 3 s on a machine of its own; the tests share theirs. */
const FIRST_ANSWER_MS = 3_000;

/** Starts a server on a free port; resolves with its URL when it says that it is ready. */
async function startServer(...args: string[]) {
  const child = kedgeCommand(["serve", "--port", "0", "--device", "cpu", ...args]).spawn();
  let out = "";
  let stderr = "";
  const drained = child.stderr.pipeThrough(new TextDecoderStream())
    .pipeTo(new WritableStream({ write: (text) => void (stderr += text) }));
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let url: string | undefined;
  while (url === undefined) {
    const { value, done } = await reader.read();
    if (done) break;
    out += value;
    url = /^ready: (http:\S+)$/m.exec(out)?.[1];
  }
  const end = async () => {
    const { code } = await child.status;
    await drained;
    for (let rest = await reader.read(); !rest.done; rest = await reader.read()) out += rest.value;
    return { code, out, err: stderr };
  };
  if (url === undefined) assert.fail(`wanted a ready server: ${(await end()).err}`);
  return { child, url, end };
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function status(url: string, headers: Record<string, string> = {}): Promise<number> {
  const response = await fetch(url, { headers });
  await response.body?.cancel();
  return response.status;
}

function chat(url: string, fields: Record<string, unknown>): Promise<Response> {
  const messages = [{ role: "user", content: "Tell me a story about a fox." }];
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "kedge-tiny", messages, ...fields }),
  });
}

/** Standard error is no terminal here: each of its lines is JSON. */
// deno-lint-ignore no-explicit-any
function logOf(text: string): any[] {
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`serve answers within 3 s and ends at ${signal} with status 0`, async () => {
    const began = performance.now();
    const server = await startServer();
    const response = await chat(server.url, { max_tokens: 4, temperature: 0 });
    const elapsed = performance.now() - began;
    const body = await response.json();
    assert.equal(response.status, 200);
    assert.equal(body.usage.completion_tokens, 4);
    assert.ok(elapsed <= FIRST_ANSWER_MS, `first answer after ${elapsed.toFixed(0)} ms`);
    server.child.kill(signal);
    const { code, out, err } = await server.end();
    assert.equal(code, 0, err);
    const lines = logOf(err);
    assert.deepEqual(lines.map(({ logger }) => logger), [
      "kedge.server",
      "kedge.server",
      "kedge.http",
    ]);
    assert.equal(lines[0].weights, "as in the file");
    assert.deepEqual([lines[1].bytes > 29e6, lines[1].seconds > 0], [true, true]);
    assert.deepEqual([lines[2].status, lines[2].completionTokens], [200, 4]);
    assert.match(out, /^model: kedge-tiny, 26\.1 M parameters, context of \d+ tokens, 8 slots$/m);
  });
}

Deno.test("serve asked to end lets a running answer finish and takes no other", async () => {
  const server = await startServer();
  const response = await chat(server.url, { max_tokens: 200, temperature: 0, stream: true });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader.read()).value ?? "";
  assert.equal(await status(`${server.url}/readyz`), 200);
  server.child.kill("SIGTERM");
  while (await status(`${server.url}/readyz`) === 200) await pause(1);
  assert.equal(await status(`${server.url}/livez`), 200);
  const refused = await chat(server.url, { max_tokens: 1 });
  assert.equal(refused.status, 503);
  assert.ok(Number(refused.headers.get("retry-after")) >= 1);
  assert.equal((await refused.json()).error.type, "overloaded_error");
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  assert.ok(text.endsWith("data: [DONE]\n\n"), text.slice(-200));
  assert.equal((await server.end()).code, 0);
});

Deno.test("serve ends at once when it is asked twice", async () => {
  const server = await startServer();
  const response = await chat(server.url, { max_tokens: 4000, temperature: 1, stream: true });
  const reader = response.body!.getReader();
  await reader.read();
  const began = performance.now();
  server.child.kill("SIGTERM");
  await pause(100);
  server.child.kill("SIGTERM");
  assert.equal((await server.end()).code, 0);
  const elapsed = performance.now() - began;
  assert.ok(elapsed < 1_000, `ended after ${elapsed.toFixed(0)} ms`);
  await reader.cancel().catch(() => {});
});

Deno.test("serve cuts answers off when their time is over", async () => {
  const server = await startServer("--drain-seconds", "0");
  const response = await chat(server.url, { max_tokens: 100_000, temperature: 1, stream: true });
  const reader = response.body!.getReader();
  await reader.read();
  const began = performance.now();
  server.child.kill("SIGTERM");
  const { code, err } = await server.end();
  const elapsed = performance.now() - began;
  assert.equal(code, 0);
  assert.ok(elapsed < 1_000, `ended after ${elapsed.toFixed(0)} ms`);
  const { level, answers } = logOf(err).at(-1);
  assert.deepEqual([level, answers], ["WARN", 1]);
  await reader.cancel().catch(() => {});
});

Deno.test("serve with keys: none without one, others after SIGHUP", async () => {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/keys.json`;
  const command = (...args: string[]) => kedge(["keys", ...args, "--file", file]);
  try {
    const old = (await command("add", "old")).out.trim();
    const server = await startServer("--keys", file);
    const models = (key: string) => status(`${server.url}/v1/models`, { "x-api-key": key });
    assert.equal(await models(old), 200);
    assert.equal(await models("none"), 401);
    assert.equal(await status(`${server.url}/health`), 200);
    const young = (await command("add", "young", "--scope", "admin")).out.trim();
    assert.equal((await command("revoke", "old")).code, 0);
    assert.deepEqual([await models(old), await models(young)], [200, 401]);
    server.child.kill("SIGHUP");
    while (await models(young) !== 200) await pause(5);
    assert.equal(await models(old), 401);
    await Deno.writeTextFile(file, "broken");
    server.child.kill("SIGHUP");
    await pause(100);
    assert.equal(await models(young), 200);
    server.child.kill("SIGTERM");
    const { code, out, err } = await server.end();
    assert.equal(code, 0);
    assert.match(out, /-H "Authorization: Bearer \$KEDGE_API_KEY"/);
    assert.equal(logOf(err).filter(({ level }) => level === "ERROR").length, 1);
    for (const key of [old, young]) assert.ok(!(out + err).includes(key));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("serve without keys stays on loopback, and foreign pages stay out", async () => {
  for (const host of ["0.0.0.0", "::"]) {
    const { code, out, err } = await kedge(["serve", "--port", "0", "--host", host]);
    assert.deepEqual([code, out], [2, ""], err);
    assert.match(err, /^kedge: listen on ".*": wanted keys .*"kedge keys add NAME".*--insecure\n$/);
  }
  const missing = await kedge(["serve", "--keys", "/nowhere/keys.json"]);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /^kedge: read key file "\/nowhere\/keys\.json": wanted a file, found/);
  for (
    const [args, foreign] of [
      [["--host", "localhost"], 403],
      [["--host", "0.0.0.0", "--insecure"], 200],
    ] as const
  ) {
    const server = await startServer(...args);
    const models = `${server.url}/v1/models`;
    assert.equal(await status(models), 200);
    assert.equal(await status(models, { origin: "https://evil.example" }), foreign);
    server.child.kill("SIGTERM");
    assert.equal((await server.end()).code, 0);
  }
});

Deno.test("the request that serve suggests works as it is printed", async () => {
  const server = await startServer("--context", "64");
  server.child.kill("SIGTERM");
  const { out } = await server.end();
  const data = /-d '(.*)'$/m.exec(out)?.[1];
  assert.ok(data !== undefined, out);
  const body = JSON.parse(data);
  assert.deepEqual([body.model, body.stream], ["kedge-tiny", true]);
  assert.ok(out.includes(`curl -N ${server.url}/v1/chat/completions `), out);
  assert.match(out, /context of 64 tokens/);
});

Deno.test("serve refuses an address that it can't listen on, with status 2", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken = String(listener.addr.port);
  for (
    const [args, message] of [
      [["--port", taken], /^kedge: listen on "127\.0\.0\.1" port \d+: another program listens /],
      [["--host", "192.0.2.1"], /^kedge: listen on "192\.0\.2\.1" port \d+: wanted an address of /],
    ] as const
  ) {
    const { code, out, err } = await kedge(["serve", ...args]);
    assert.deepEqual([code, out], [2, ""], err);
    assert.match(err, message);
    assert.equal(err.trim().split("\n").length, 1, err);
  }
});
