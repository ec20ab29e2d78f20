/** `kedge serve`: a model behind HTTP until a signal ends it. */
import type { Engine } from "../engine/engine.ts";
import { UsageError } from "../errors.ts";
import { createApp } from "../http/app.ts";
import { DRAIN_MS } from "../limits.ts";
import { type ModelOptions, openModel } from "./open_model.ts";

export interface ServeOptions extends ModelOptions {
  /** Address or name to listen on. */
  readonly host: string;
  /** 0 picks a free port. */
  readonly port: number;
}

const STOP_SIGNALS: readonly Deno.Signal[] = ["SIGINT", "SIGTERM"];

/**
 * Serves until SIGINT or SIGTERM, then takes no new requests and lets those that run finish, for
 * DRAIN_MS at most; a second signal ends it at once. Throws UsageError when it can't listen, and
 * what openModel throws.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { host: hostname, port } = options;
  // Before the model is loaded: a port that is taken should not cost the time of a load.
  listening(options, () => Deno.listen({ hostname, port }).close());
  const interrupt = () => Deno.exit(0);
  for (const signal of STOP_SIGNALS) Deno.addSignalListener(signal, interrupt);
  const model = await openModel(options);
  const app = createApp(model);
  const server = listening(
    options,
    () => Deno.serve({ hostname, port, onListen() {} }, (request) => app.fetch(request)),
  );
  const stopAsked = nextSignal();
  for (const signal of STOP_SIGNALS) Deno.removeSignalListener(signal, interrupt);
  console.log(readyText(model.engine, options.host, server.addr.port));
  await stopAsked;
  await drain(server, model.engine);
  Deno.exit(0);
}

/** Runs `action`, which listens on the options' address; what goes wrong becomes a UsageError. */
function listening<Result>({ host, port }: ServeOptions, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    const place = `listen on "${host}" port ${port}`;
    if (error instanceof Deno.errors.AddrInUse) {
      throw new UsageError(`${place}: another program listens there; choose another with --port`);
    }
    if (error instanceof Deno.errors.AddrNotAvailable) {
      throw new UsageError(`${place}: wanted an address of this machine`);
    }
    const fault = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${place}: ${fault}`);
  }
}

/** Resolves at the next SIGINT or SIGTERM. */
function nextSignal(): Promise<void> {
  return new Promise((resolve) => {
    const listener = () => {
      for (const signal of STOP_SIGNALS) Deno.removeSignalListener(signal, listener);
      resolve();
    };
    for (const signal of STOP_SIGNALS) Deno.addSignalListener(signal, listener);
  });
}

/** Resolves when no request runs any more, after DRAIN_MS, or at another signal. */
async function drain(server: Deno.HttpServer, engine: Engine): Promise<void> {
  const { running, queued } = engine.stats;
  if (running + queued > 0) {
    console.error(
      `stopping: ${running + queued} requests still run; press Ctrl-C again to end them`,
    );
  }
  const timeout = new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
  await Promise.race([server.shutdown(), timeout, nextSignal()]);
}

/** What a user reads when the server is ready: where it is, and a request to try. */
function readyText(engine: Engine, host: string, port: number): string {
  const { model } = engine;
  const url = `http://${urlHost(host)}:${port}`;
  const body = JSON.stringify({
    model: model.id,
    messages: [{ role: "user", content: "Tell me a story about a fox." }],
    stream: true,
  });
  return [
    `model: ${model.id}, ${countText(model.parameterCount)} parameters, ` +
    `context of ${model.contextLength} tokens, ${model.slots} slots`,
    `ready: ${url}`,
    "",
    "Try it:",
    `  curl -N ${url}/v1/chat/completions -H 'Content-Type: application/json' \\`,
    `    -d '${body.replaceAll("'", "'\\''")}'`,
  ].join("\n");
}

/** A host as a URL needs it: a wildcard address is reached by loopback, IPv6 stands in brackets. */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}

/** `14,694,400` as `14.7 M`. */
function countText(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} B`;
  return `${(count / 1e6).toFixed(1)} M`;
}
