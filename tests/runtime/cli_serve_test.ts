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

function chat(url: string, fields: Record<string, unknown>): Promise<Response> {
  const messages = [{ role: "user", content: "Tell me a story about a fox." }];
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "kedge-tiny", messages, ...fields }),
  });
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
    assert.match(err, /^device: .*\nload kedge-tiny: 29\.3 MB in .* s, .*\n$/);
    assert.match(out, /^model: kedge-tiny, 26\.1 M parameters, context of \d+ tokens, 8 slots$/m);
  });
}

Deno.test("serve lets a running answer finish when it is asked to end", async () => {
  const server = await startServer();
  const response = await chat(server.url, { max_tokens: 200, temperature: 0, stream: true });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader.read()).value ?? "";
  server.child.kill("SIGTERM");
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
  await new Promise((resolve) => setTimeout(resolve, 100));
  server.child.kill("SIGTERM");
  assert.equal((await server.end()).code, 0);
  const elapsed = performance.now() - began;
  assert.ok(elapsed < 1_000, `ended after ${elapsed.toFixed(0)} ms`);
  await reader.cancel().catch(() => {});
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
