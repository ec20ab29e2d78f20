/** How a server ends: by a signal, after its running requests, or with its engine. */
import type { Engine } from "../engine/engine.ts";
import { FAILURE_GRACE_MS, FAILURE_LOOK_MS } from "../limits.ts";
import { serverLog } from "../log.ts";

export const STOP_SIGNALS: readonly Deno.Signal[] = ["SIGINT", "SIGTERM"];

/** For the supervisor: the engine has failed for good, another process may do better. */
const EXIT_ENGINE_FAILED = 4;

/** Resolves at the next SIGINT or SIGTERM. */
export function nextSignal(): Promise<void> {
  return new Promise((resolve) => {
    const listener = () => {
      for (const signal of STOP_SIGNALS) Deno.removeSignalListener(signal, listener);
      resolve();
    };
    for (const signal of STOP_SIGNALS) Deno.addSignalListener(signal, listener);
  });
}

/** Answers under way, each until its last byte is out. */
export class AnswerCount {
  #count = 0;
  #idle: PromiseWithResolvers<void> | null = null;

  add(completed: Promise<void>): void {
    this.#count++;
    const end = () => {
      if (--this.#count === 0) this.#idle?.resolve();
    };
    void completed.then(end, end);
  }

  get count(): number {
    return this.#count;
  }

  /** Resolves when there are none. */
  idle(): Promise<void> {
    if (this.#count === 0) return Promise.resolve();
    this.#idle = Promise.withResolvers();
    return this.#idle.promise;
  }
}

/** Resolves when the engine has failed for good. Logs each restart before. */
export function failureOf(engine: Engine): Promise<void> {
  let { restarts } = engine;
  return new Promise((resolve) => {
    const look = setInterval(() => {
      if (engine.restarts !== restarts) {
        restarts = engine.restarts;
        serverLog.warning("the engine failed and starts again: {restarts} so far", { restarts });
      }
      if (engine.state !== "failed") return;
      clearInterval(look);
      resolve();
    }, FAILURE_LOOK_MS);
  });
}

/**
 * Resolves when no request runs any more, when their time is over, or at another signal. The server
 * goes on listening: those who ask meanwhile are told that it takes no more.
 */
export async function drain(
  server: Deno.HttpServer,
  engine: Engine,
  answers: AnswerCount,
  drainSeconds: number,
): Promise<void> {
  engine.drain();
  const again = nextSignal();
  if (answers.count > 0) {
    serverLog.info("stopping: {answers} answers under way, for {seconds} s at most", {
      answers: answers.count,
      seconds: drainSeconds,
    });
  }
  const late = new Promise((resolve) => setTimeout(resolve, drainSeconds * 1_000));
  const finished = answers.idle().then(() => server.shutdown());
  await Promise.race([finished, late, again]);
  if (answers.count > 0) {
    serverLog.warning("stopped: {answers} answers cut off", { answers: answers.count });
  }
}

/** Status of the process; requests that a failed engine ended get their answers first. */
export async function exitCode(engine: Engine, answers: AnswerCount): Promise<number> {
  if (engine.state !== "failed") return 0;
  const fault = engine.failure?.message ?? "unknown";
  serverLog.error("the engine has failed for good: {fault}", { fault });
  const late = new Promise((resolve) => setTimeout(resolve, FAILURE_GRACE_MS));
  await Promise.race([answers.idle(), late]);
  return EXIT_ENGINE_FAILED;
}
