/** Requests that are too large, too slow or no HTTP at all, over real connections. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { readJsonObject } from "../../runtime/http/body.ts";
import { errorResponse } from "../../runtime/http/errors.ts";
import { MAX_HEADER_BYTES, MAX_URL_CHARACTERS } from "../../runtime/limits.ts";
import { appOver, FakeEngine, post } from "./fake_engine.ts";
import { collectLog } from "./log_lines.ts";

/** Answers of these mean that the server itself has failed. */
const NO_FAULT = [400, 403, 404, 405, 408, 413, 414, 431];

async function errorOf(response: Response, status: number) {
  equal(response.status, status);
  const { error } = await response.json();
  deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
  return error;
}

async function withServer(
  handler: (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>,
  action: (port: number) => Promise<void>,
): Promise<void> {
  const options = { hostname: "127.0.0.1", port: 0, onListen() {}, onError: errorResponse };
  const server = Deno.serve(options, handler);
  try {
    await action(server.addr.port);
  } finally {
    await server.shutdown();
  }
}

/** Sends bytes and reads until the server closes, or until nothing came for `quietMs`. */
async function exchange(port: number, text: string, quietMs = 1_000): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(text));
  const buffer = new Uint8Array(65_536);
  let answer = "";
  while (true) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const quiet = new Promise<null>((resolve) => timer = setTimeout(resolve, quietMs, null));
    const read = connection.read(buffer).catch(() => null);
    const size = await Promise.race([read, quiet]);
    clearTimeout(timer);
    if (size === null) return answer;
    answer += new TextDecoder().decode(buffer.subarray(0, size));
  }
}

Deno.test("head: the URL's length is bounded", async () => {
  const app = appOver(new FakeEngine());
  const start = "http://localhost/v1/models?";
  const fits = start + "a".repeat(MAX_URL_CHARACTERS - start.length);
  equal((await app.request(fits)).status, 200);
  match(
    (await errorOf(await app.request(fits + "a"), 414)).message,
    /8192 characters, found 8193$/,
  );
});

Deno.test("head: the headers' size is bounded, in one or in many", async () => {
  const app = appOver(new FakeEngine());
  const request = (headers: Record<string, string>) => app.request("/v1/models", { headers });
  const room = MAX_HEADER_BYTES - "x-a".length - 4;
  equal((await request({ "x-a": "a".repeat(room) })).status, 200);
  const error = await errorOf(await request({ "x-a": "a".repeat(room + 1) }), 431);
  match(error.message, /^read headers: wanted at most 16384 bytes, found 16385$/);
  const many = Array.from({ length: 1_700 }, (_, index) => [`x-${1_000 + index}`, ""]);
  await errorOf(await request(Object.fromEntries(many)), 431);
});

Deno.test("head: what is no proper request is no fault of the server", async () => {
  const lines = collectLog();
  const app = appOver(new FakeEngine());
  await withServer((request, info) => app.fetch(request, info), async (port) => {
    const host = "Host: localhost\r\n";
    for (
      const text of [
        `GET /${"a".repeat(9_000)} HTTP/1.1\r\n${host}\r\n`,
        `GET /v1/models HTTP/1.1\r\n${host}x-a: ${"a".repeat(20_000)}\r\n\r\n`,
        `GET /v1/models HTTP/1.1\r\n${host}x-a: ${"a".repeat(1_000_000)}\r\n\r\n`,
        `GET /v1/models HTTP/1.1\r\n${host}${"x-a: a\r\n".repeat(5_000)}\r\n`,
        `GET / HTTP/1.1\r\nHost: a b/c?d\r\n\r\n`,
        `GET / HTTP/1.1\r\n${host}${host}\r\n`,
        `GET nonsense HTTP/1.1\r\n${host}\r\n`,
        `CONNECT localhost:1 HTTP/1.1\r\n${host}\r\n`,
        `OPTIONS * HTTP/1.1\r\n${host}\r\n`,
        `POST /tokenize HTTP/1.1\r\n${host}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`,
        `POST /tokenize HTTP/1.1\r\n${host}Content-Length: -1\r\n\r\n{}`,
        `POST /tokenize HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
        "\u0016\u0003\u0001 nonsense\r\n\r\n",
      ]
    ) {
      const answer = await exchange(port, text, 300);
      const status = /^HTTP\/1\.1 (\d+) /.exec(answer)?.[1];
      ok(status === undefined || [200, ...NO_FAULT].includes(Number(status)), answer.slice(0, 200));
      equal(
        (await fetch(`http://127.0.0.1:${port}/health`).then((each) => each.json())).status,
        "ok",
      );
    }
  });
  deepEqual(lines.filter(({ level }) => level === "ERROR"), []);
});

Deno.test("body: one that is late is 408, and the client is told to close", async () => {
  const handler = async (request: Request) => {
    try {
      return Response.json(await readJsonObject(request, 200));
    } catch (error) {
      return errorResponse(error);
    }
  };
  await withServer(handler, async (port) => {
    const head = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    for (
      const body of ["Content-Length: 10\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
    ) {
      const answer = await exchange(port, head + body, 500);
      match(answer, /^HTTP\/1\.1 408 /);
      match(answer, /\r\nconnection: close\r\n/);
      ok(answer.includes('"type":"timeout_error"'), answer);
    }
    match(await exchange(port, `${head}Content-Length: 2\r\n\r\n{}`, 300), /^HTTP\/1\.1 200 /);
  });
});

Deno.test("body: one that breaks off is no fault of the server", async () => {
  const lines = collectLog();
  const engine = new FakeEngine();
  const app = appOver(engine);
  const ended = Promise.withResolvers<void>();
  const handler = async (request: Request, info: Deno.ServeHandlerInfo) => {
    const response = await app.fetch(request, info);
    ended.resolve();
    return response;
  };
  await withServer(handler, async (port) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    await connection.write(new TextEncoder().encode(head));
    await new Promise((resolve) => setTimeout(resolve, 50));
    connection.close();
    await ended.promise;
  });
  equal(engine.places, 0);
  deepEqual(lines.filter(({ level }) => level === "ERROR"), []);
});

Deno.test("connections: 500 that say nothing, or half of it, keep nobody waiting", async () => {
  const app = appOver(new FakeEngine());
  const handler = (request: Request, info: Deno.ServeHandlerInfo) => app.fetch(request, info);
  await withServer(handler, async (port) => {
    const silent: Deno.TcpConn[] = [];
    const starts = [
      "",
      "GET / HTTP/1.1\r\nHost:",
      "POST /tokenize HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ];
    for (let count = 0; count < 500; count++) {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port });
      await connection.write(new TextEncoder().encode(starts[count % starts.length]!));
      silent.push(connection);
    }
    const waits: number[] = [];
    for (let count = 0; count < 100; count++) {
      const began = performance.now();
      const response = await fetch(`http://127.0.0.1:${port}/health`);
      equal((await response.json()).status, "ok");
      waits.push(performance.now() - began);
    }
    for (const connection of silent) connection.close();
    waits.sort((a, b) => a - b);
    const [median, slowest] = [waits[50]!, waits.at(-1)!];
    console.log(`health beside 500 connections: ${median.toFixed(1)} ms, ${slowest.toFixed(1)} ms`);
    ok(median <= 50, `${median} ms`);
  });
});

Deno.test("body: limits of the head do not touch it", async () => {
  const content = "a".repeat(4 * MAX_HEADER_BYTES);
  const app = appOver(new FakeEngine());
  equal((await post(app, "/tokenize", { content })).status, 200);
});
