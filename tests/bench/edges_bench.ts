/**
 * What HTTP and text cost a token: the main thread's CPU time while 64 streams get a token each at
 * every step, their readers in another process, the steps' clock in a Worker that computes nothing.
 * Before the routes comes what Deno alone takes to write the same bytes, one write a token.
 * Linux only: it reads the thread's own clock.
 *
 *     deno run -A tests/bench/edges_bench.ts [step ms]
 */
import type { EngineStats } from "../../runtime/engine/engine.ts";
import { SupervisedEngine } from "../../runtime/engine/supervised_engine.ts";
import { WorkerThread } from "../../runtime/engine/worker_thread.ts";
import { measureDecode } from "../../runtime/cli/bench_engine.ts";
import { median } from "../../runtime/cli/statistics.ts";
import { createApp } from "../../runtime/http/app.ts";
import { FakeEngine } from "../server/fake_engine.ts";
import { collectLog } from "../server/log_lines.ts";
import { startServer } from "../server/running.ts";
import { tinyGeneration, tinyTokenizer } from "../tools/tiny_text.ts";

const STREAMS = 64;
const ROUNDS = 5;
/** 64 rows on a GPU of a data centre; a twentieth may be spent beside it. */
const STEP_MS = Number(Deno.args[0] ?? 16);
const TOKENS = Math.ceil(4_000 / STEP_MS);
const TEXT = "Once upon a time a small robot found a key in the garden. It asked the old owl " +
  'what the key was for, and the owl said: "Every door in this town has forgotten its own."\n';
const ROUTES: Readonly<Record<string, object>> = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "x" }] },
  "/v1/completions": { prompt: "x" },
  "/v1/responses": { input: "x" },
  "/v1/messages": { messages: [{ role: "user", content: "x" }] },
  "/api/chat": { messages: [{ role: "user", content: "x" }] },
};

/** Milliseconds of a step of 64 rows of the embedded model on the cpu device. */
async function cpuStep(): Promise<number> {
  const running = await startServer({ slots: STREAMS, contextTokens: 512 });
  const { tokensPerSecond } = (await measureDecode(running.engine, STREAMS, 1))!;
  await running.stop();
  return STREAMS / tokensPerSecond * 1_000;
}

const cpuStepMs = await cpuStep();
collectLog();
const stats: EngineStats = { ...new FakeEngine().stats };
const model = { ...new FakeEngine().model, slots: STREAMS };
const worker = new Worker(new URL("./edges/steps_worker.ts", import.meta.url), { type: "module" });
worker.postMessage({ stepMs: STEP_MS, ids: tinyTokenizer.encode(TEXT), stats });
const engine = new SupervisedEngine(
  { thread: new WorkerThread(worker, false), model, stats },
  {
    modelDirectory: "",
    device: "cpu",
    weights: undefined,
    slots: STREAMS,
    contextTokens: undefined,
    memoryBytes: undefined,
    latentFormat: "f16",
    faults: [],
    life: 0,
  },
  {
    admission: { slots: STREAMS, queueRequests: STREAMS, queueTokens: 2 ** 20 },
    watchdogMs: 10_000,
    slowReaderMs: 30_000,
    deathsMax: 1,
  },
);
const app = createApp({ engine, tokenizer: tinyTokenizer, generation: tinyGeneration });
const server = Deno.serve(
  { port: 0, hostname: "127.0.0.1", onListen() {} },
  (request, info) => app.fetch(request, info),
);
const url = `http://127.0.0.1:${server.addr.port}`;

/** Streams of one ready event a step, without Kedge. */
const bareEvents = new Set<{ readonly send: () => boolean }>();
setInterval(() => {
  for (const stream of bareEvents) if (!stream.send()) bareEvents.delete(stream);
}, STEP_MS);
const bareServer = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => {
  const event = new TextEncoder().encode(`data: ${"x".repeat(220)}\n\n`);
  let left = TOKENS;
  return new Response(
    new ReadableStream({
      start(controller) {
        const send = () => {
          controller.enqueue(event);
          if (--left === 0) controller.close();
          return left > 0;
        };
        bareEvents.add({ send });
      },
    }),
  );
});
const bareUrl = `http://127.0.0.1:${bareServer.addr.port}`;

/** Nanoseconds that this thread, the process's first, has run. */
function threadTime(): number {
  return Number(Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/schedstat`).split(" ")[0]);
}

/** Microseconds a token, of requests from their arrival to their end. */
async function measure(origin: string, path: string, fields: object): Promise<number> {
  const limit = path.startsWith("/api")
    ? { options: { num_predict: TOKENS } }
    : path === "/v1/responses"
    ? { max_output_tokens: TOKENS }
    : { max_tokens: TOKENS };
  const body = JSON.stringify({ model: "kedge-tiny", stream: true, ...fields, ...limit });
  const client = new URL("./edges/client.ts", import.meta.url).pathname;
  const before = threadTime();
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-net", client, origin, path, body, String(STREAMS)],
  }).spawn().status;
  if (!success) throw new Error(`read ${path}: the client failed`);
  return (threadTime() - before) / 1_000 / (STREAMS * TOKENS);
}

console.log(`${STREAMS} streams, ${TOKENS} tokens each, medians of ${ROUNDS}; shares of a step of`);
console.log(`${STEP_MS} ms, and of kedge-tiny's on the cpu device: ${cpuStepMs.toFixed(0)} ms`);
console.log("route                  us a token     of a step    of the cpu's");
const bare = ["Deno alone", bareUrl, "/", {}] as const;
const routes = Object.entries(ROUTES).map(([path, fields]) => [path, url, path, fields] as const);
for (const [name, origin, path, fields] of [bare, ...routes]) {
  await measure(origin, path, fields);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) times.push(await measure(origin, path, fields));
  const time = median(times);
  const shareOf = (stepMs: number) =>
    `${(time * STREAMS / (10 * stepMs)).toFixed(1)} %`.padStart(16);
  console.log(
    name.padEnd(22) + time.toFixed(1).padStart(11) + shareOf(STEP_MS) + shareOf(cpuStepMs),
  );
}
Deno.exit(0);
