/** Real sockets: a client that leaves stops its generation, whatever state that is in. */
import { equal, ok } from "node:assert/strict";
import { appOver, FakeEngine } from "./fake_engine.ts";

const CASES = [
  { name: "stream, leaves after some text", stream: true, tokenMs: 5, reads: true },
  { name: "stream, leaves before the first token", stream: true, tokenMs: 60_000, reads: false },
  { name: "whole, leaves while tokens are made", stream: false, tokenMs: 5, reads: false },
  { name: "whole, leaves before the first token", stream: false, tokenMs: 60_000, reads: false },
];
const BODIES = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "x" }] },
  "/v1/completions": { prompt: ["x", "y", "z"], max_tokens: 4000 },
};

async function until(condition: () => boolean, milliseconds: number): Promise<number> {
  const start = performance.now();
  while (!condition()) {
    if (performance.now() - start > milliseconds) return Infinity;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return performance.now() - start;
}

for (const [path, fields] of Object.entries(BODIES)) {
  for (const { name, stream, tokenMs, reads } of CASES) {
    Deno.test(`disconnect: ${path}, ${name}`, async () => {
      const engine = new FakeEngine({ output: "word ".repeat(3000), tokenMs });
      const app = appOver(engine);
      const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, app.fetch);
      try {
        const socket = await Deno.connect({ port: server.addr.port, hostname: "127.0.0.1" });
        const body = JSON.stringify({ ...fields, stream });
        const head = `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${body.length}`;
        await socket.write(new TextEncoder().encode(`${head}\r\n\r\n${body}`));
        if (reads) {
          let seen = "";
          const buffer = new Uint8Array(4096);
          while (!seen.includes("word")) {
            const size = await socket.read(buffer);
            seen += new TextDecoder().decode(buffer.subarray(0, size ?? 0));
          }
        }
        ok(await until(() => engine.running > 0, 2000) < 2000, "the request was never started");
        await new Promise((resolve) => setTimeout(resolve, 30));
        socket.close();
        const took = await until(() => engine.running === 0, 2000);
        console.log(`freed after ${took.toFixed(1)} ms`);
        ok(took < 1000, "the generation went on");
        const { delivered, requests } = engine;
        await new Promise((resolve) => setTimeout(resolve, 30));
        equal(engine.delivered, delivered);
        equal(engine.requests.length, requests.length);
        equal(engine.places, 0);
      } finally {
        await server.shutdown();
      }
    });
  }
}
