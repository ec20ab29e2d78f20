/**
 * Seconds from the start of the process until the first answer, with an empty shader cache and with
 * the one that this left: the difference is what the driver's compilation adds to a first start.
 *
 *   deno run -A tests/bench/first_answer.ts [--json] [options of kedge serve]
 *
 * The answer is the first token after a short prompt, through HTTP. A cache that stays empty is
 * said: its driver keeps none, or elsewhere. What all of compilation takes is in `kedge bench`
 * ("shaders and pools").
 */

const LAUNCHER = decodeURIComponent(new URL("../../kedge", import.meta.url).pathname);
/** Drivers keep compiled shaders below these. */
const CACHE_VARIABLES = ["XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];

interface Start {
  /** Until it listens and the model can run. */
  readonly readySeconds: number;
  readonly firstAnswerSeconds: number;
}

const args = Deno.args.filter((arg) => arg !== "--json");
const cache = Deno.makeTempDirSync({ prefix: "kedge-shaders-" });
try {
  const empty = await start();
  const cacheBytes = sizeOf(cache);
  const filled = await start();
  const addedSeconds = empty.firstAnswerSeconds - filled.firstAnswerSeconds;
  const report = { empty, filled, cacheBytes, addedSeconds };
  console.log(Deno.args.includes("--json") ? JSON.stringify(report) : text(report));
} finally {
  Deno.removeSync(cache, { recursive: true });
}

function text({ empty, filled, cacheBytes, addedSeconds }: {
  readonly empty: Start;
  readonly filled: Start;
  readonly cacheBytes: number;
  readonly addedSeconds: number;
}): string {
  const line = (name: string, { readySeconds, firstAnswerSeconds }: Start) =>
    `${name.padEnd(16)}ready after ${readySeconds.toFixed(2)} s, ` +
    `first answer after ${firstAnswerSeconds.toFixed(2)} s`;
  const added = cacheBytes === 0
    ? "the driver left nothing in the cache"
    : `${addedSeconds.toFixed(2)} s more; the cache holds ${(cacheBytes / 1e6).toFixed(1)} MB`;
  return [line("empty cache", empty), line("filled cache", filled), added].join("\n");
}

async function start(): Promise<Start> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1_000;
  const child = new Deno.Command(LAUNCHER, {
    args: ["serve", "--device", "webgpu", "--port", "0", ...args],
    env: Object.fromEntries(CACHE_VARIABLES.map((name) => [name, cache])),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const address = await addressOf(child);
  const readySeconds = seconds();
  try {
    const models = await (await fetch(`${address}/v1/models`)).json();
    const model = models.data[0].id;
    const response = await fetch(`${address}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model, prompt: "Once", max_tokens: 1, temperature: 0 }),
    });
    if (!response.ok) throw new Error(`ask: found ${response.status}: ${await response.text()}`);
    await response.body?.cancel();
    return { readySeconds, firstAnswerSeconds: seconds() };
  } finally {
    child.kill("SIGTERM");
    await child.status;
  }
}

/** Where the server says that it is ready; what else it says is passed on. */
async function addressOf(child: Deno.ChildProcess): Promise<string> {
  let found = "";
  const ready = Promise.withResolvers<string>();
  const readAll = async (stream: Deno.ChildProcess["stdout"]) => {
    for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
      found += piece;
      const address = /ready: (http:\/\/[^\s"\\]+)/.exec(found)?.[1];
      if (address !== undefined) ready.resolve(address);
    }
  };
  void Promise.all([readAll(child.stdout), readAll(child.stderr)]).then(() =>
    ready.reject(new Error(`start kedge serve: wanted it to be ready, found:\n${found}`))
  );
  return await ready.promise;
}

function sizeOf(folder: string): number {
  let bytes = 0;
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    bytes += isDirectory ? sizeOf(path) : Deno.statSync(path).size;
  }
  return bytes;
}
