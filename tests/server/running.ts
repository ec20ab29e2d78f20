/** The embedded model behind a real socket, and what must be left when a test ends. */
import assert from "node:assert/strict";
import type { Engine } from "../../runtime/engine/engine.ts";
import { startEngine, type StartOptions } from "../../runtime/engine/start.ts";
import { createApp } from "../../runtime/http/app.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { loadTextModule, Tokenizer } from "../../wasm/text.ts";
import { collectLog, type LogLine } from "./log_lines.ts";

export const MODEL = new URL("../../models/kedge-tiny", import.meta.url).pathname;
/** Log levels that no test expects. */
const UNEXPECTED = new Set(["WARN", "ERROR", "FATAL"]);

export interface RunningServer {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly url: string;
  /** Answers in this process, without a socket. */
  readonly fetch: (request: Request) => Response | Promise<Response>;
  readonly log: readonly LogLine[];
  /** Ends it; asserts that nothing runs, waits or is held, and nothing unexpected was logged. */
  stop(): Promise<void>;
}

export async function startServer(
  options: Omit<Partial<StartOptions>, "modelDirectory"> = {},
): Promise<RunningServer> {
  const log = collectLog();
  const engine = await startEngine({
    device: "cpu",
    contextTokens: 2_048,
    ...options,
    modelDirectory: MODEL,
  });
  const folder = await openModelFolder(MODEL);
  loadTextModule();
  const { tiktokenModel, specials } = folder.tokenizer;
  const tokenizer = new Tokenizer(tiktokenModel, specials, folder.config.shape.vocabularySize);
  const app = createApp({ engine, tokenizer, generation: folder.generation });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request, info) => app.fetch(request, info),
  );
  return {
    engine,
    tokenizer,
    url: `http://127.0.0.1:${server.addr.port}`,
    fetch: (request) => app.fetch(request),
    log,
    async stop() {
      await server.shutdown();
      await until(() => isIdle(engine), 2_000, "the engine never came to rest");
      await engine.close();
      tokenizer.free();
      assert.deepEqual(log.filter(({ level }) => UNEXPECTED.has(level)), []);
    },
  };
}

export function isIdle({ stats, model }: Engine): boolean {
  const { running, queued, paused, freeSlots, freePages, pages } = stats;
  return running + queued + paused === 0 && freeSlots === model.slots && freePages === pages;
}

/** Waits for a condition; milliseconds it took. */
export async function until(
  condition: () => boolean,
  milliseconds: number,
  failure: string,
): Promise<number> {
  const began = performance.now();
  while (!condition()) {
    assert.ok(performance.now() - began < milliseconds, failure);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return performance.now() - began;
}

/** What a streamed completion held. */
export interface StreamedText {
  readonly text: string;
  readonly finishReasons: readonly string[];
  readonly doneEvents: number;
}

/** Reads a stream of /v1/completions to its end. */
export async function readStream(response: Response): Promise<StreamedText> {
  assert.equal(response.status, 200, await errorText(response));
  let text = "";
  const finishReasons: string[] = [];
  let doneEvents = 0;
  for (const event of (await response.text()).split("\n\n")) {
    if (!event.startsWith("data: ")) continue;
    const data = event.slice("data: ".length);
    if (data === "[DONE]") {
      doneEvents++;
      continue;
    }
    const { choices, error } = JSON.parse(data);
    assert.equal(error, undefined, data);
    assert.equal(doneEvents, 0, "an event after the end");
    for (const choice of choices) {
      text += choice.text;
      if (choice.finish_reason !== null) finishReasons.push(choice.finish_reason);
    }
  }
  return { text, finishReasons, doneEvents };
}

async function errorText(response: Response): Promise<string> {
  return response.status === 200 ? "" : await response.clone().text();
}

export function completionRequest(
  url: string,
  fields: Readonly<Record<string, unknown>>,
  signal?: AbortSignal,
): Request {
  return new Request(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(fields),
    ...(signal === undefined ? {} : { signal }),
  });
}
