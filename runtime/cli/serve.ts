/** `kedge serve`: a model behind HTTP until a signal ends it. */
import type { Engine } from "../engine/engine.ts";
import { UsageError } from "../errors.ts";
import { createApp, type DoorOptions } from "../http/app.ts";
import { errorResponse } from "../http/errors.ts";
import { hostInUrl, isLoopback, loopbackNames } from "../http/guards.ts";
import { readKeyFile } from "../keys/key_file.ts";
import { KeyRing } from "../keys/key_ring.ts";
import { formOf, serverLog, startLog, writeToStandardError } from "../log.ts";
import type { LogLevel } from "../log_level.ts";
import { type LoadReport, type ModelOptions, openModel } from "./open_model.ts";
import { AnswerCount, drain, exitCode, failureOf, nextSignal, STOP_SIGNALS } from "./shutdown.ts";

export interface ServeOptions extends ModelOptions {
  /** Address or name to listen on. */
  readonly host: string;
  /** 0 picks a free port. */
  readonly port: number;
  /** File of API keys. */
  readonly keys?: string;
  /** Takes an address that others can reach without keys. */
  readonly insecure?: boolean;
  /** Origins of web pages that may use the server. */
  readonly allowOrigin: readonly string[];
  readonly logLevel: LogLevel;
  /** How long running requests may go on once the server was asked to end. */
  readonly drainSeconds: number;
  /** Longest time from a request's arrival to its answer's end; none when left out. */
  readonly requestTimeout?: number;
}

/**
 * Serves until SIGINT or SIGTERM, then takes no new requests and lets those that run finish, for
 * `drainSeconds` at most; a second signal ends it at once. SIGHUP reads the key file again. Ends
 * with status 4 when the engine has failed for good. Throws UsageError when it can't listen or the
 * keys can't be read, and what openModel throws.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const form = formOf(Deno.stderr, Deno.noColor);
  startLog({ level: options.logLevel, form, write: writeToStandardError });
  const { host: hostname, port } = options;
  // Before the model is loaded: what is wrong here should not cost the time of a load.
  const door = openDoor(options, boundAddress(options));
  const interrupt = () => Deno.exit(0);
  for (const signal of STOP_SIGNALS) Deno.addSignalListener(signal, interrupt);
  // What programs read stays JSON from the first line on.
  const model = await openModel(options, form === "json" ? LOAD_LOG : undefined);
  const { requestTimeout } = options;
  const requestTimeoutMs = requestTimeout === undefined ? null : requestTimeout * 1_000;
  const app = createApp({ ...model, requestTimeoutMs }, door);
  const answers = new AnswerCount();
  const server = listening(
    options,
    () =>
      Deno.serve({ hostname, port, onListen() {}, onError: errorResponse }, (request, info) => {
        answers.add(info.completed);
        return app.fetch(request, info);
      }),
  );
  const stopAsked = nextSignal();
  for (const signal of STOP_SIGNALS) Deno.removeSignalListener(signal, interrupt);
  console.log(readyText(model.engine, options, server.addr.port));
  await Promise.race([stopAsked, failureOf(model.engine)]);
  if (model.engine.state !== "failed") {
    await drain(server, model.engine, answers, options.drainSeconds);
  }
  Deno.exit(await exitCode(model.engine, answers));
}

const LOAD_LOG: LoadReport = {
  show(progress) {
    if (progress.type !== "loading") return;
    const { device, weights, bytes } = progress;
    const text = "device: {device}, weights {weights}, {bytes} bytes";
    serverLog.info(text, { device, weights, bytes });
  },
  finish(bytes, seconds) {
    serverLog.info("model loaded: {bytes} bytes in {seconds} s", { bytes, seconds });
  },
  clear() {},
};

/** The address that the options' name stands for. */
function boundAddress(options: ServeOptions): string {
  const { host: hostname, port } = options;
  return listening(options, () => {
    using listener = Deno.listen({ hostname, port });
    return listener.addr.hostname;
  });
}

/** Throws UsageError for an address that others can reach, unless there are keys. */
function openDoor(options: ServeOptions, address: string): DoorOptions {
  const { host, keys: file, allowOrigin: origins } = options;
  const local = isLoopback(address);
  if (!local && file === undefined && options.insecure !== true) {
    throw new UsageError(
      `listen on "${host}": wanted keys where other machines can connect, found none; ` +
        'make one with "kedge keys add NAME" and give its file with --keys, or give --insecure',
    );
  }
  const names = local ? loopbackNames([host, address]) : null;
  return { keys: file === undefined ? null : openKeys(file), names, origins };
}

/** Keys that are read again at SIGHUP. A file that can't be read then changes nothing. */
function openKeys(file: string): KeyRing {
  const ring = new KeyRing(readKeyFile(file));
  Deno.addSignalListener("SIGHUP", () => {
    try {
      ring.replace(readKeyFile(file));
      serverLog.info("keys read again: {keys}", { keys: ring.size });
    } catch (error) {
      serverLog.error("{fault}; the keys stay as they were", { fault: messageOf(error) });
    }
  });
  return ring;
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
    throw new UsageError(`${place}: ${messageOf(error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a user reads when the server is ready: where it is, and a request to try. */
function readyText(engine: Engine, { host, keys }: ServeOptions, port: number): string {
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
    ...(keys === undefined ? [] : ['    -H "Authorization: Bearer $KEDGE_API_KEY" \\']),
    `    -d '${body.replaceAll("'", "'\\''")}'`,
  ].join("\n");
}

/** A host as a URL needs it: a wildcard address is reached by loopback. */
function urlHost(host: string): string {
  return host === "0.0.0.0" || host === "::" ? "127.0.0.1" : hostInUrl(host);
}

/** `14,694,400` as `14.7 M`. */
function countText(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} B`;
  return `${(count / 1e6).toFixed(1)} M`;
}
