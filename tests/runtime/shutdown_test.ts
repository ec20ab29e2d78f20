/** How a server ends, with an engine that a test ends or breaks. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { AnswerCount, drain, exitCode, failureOf } from "../../runtime/cli/shutdown.ts";
import { EngineError } from "../../runtime/errors.ts";
import { FakeEngine } from "../server/fake_engine.ts";
import { collectLog } from "../server/log_lines.ts";

function server(): Deno.HttpServer {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response());
}

Deno.test("drain: ends with the last answer, and takes no new requests meanwhile", async () => {
  collectLog();
  const engine = new FakeEngine();
  const answers = new AnswerCount();
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  answers.add(first.promise);
  answers.add(second.promise);
  let isOver = false;
  const drained = drain(server(), engine, answers, 60).then(() => isOver = true);
  equal(engine.state, "draining");
  first.resolve();
  await new Promise((resolve) => setTimeout(resolve, 20));
  deepEqual([answers.count, isOver], [1, false]);
  // An answer that broke off has ended too.
  second.reject(new Error("gone"));
  await drained;
  equal(answers.count, 0);
  equal(await exitCode(engine, answers), 0);
});

Deno.test("drain: cuts off what is left when its time is over, and says so", async () => {
  const lines = collectLog();
  const answers = new AnswerCount();
  answers.add(new Promise(() => {}));
  const running = server();
  const began = performance.now();
  await drain(running, new FakeEngine(), answers, 0.1);
  const took = performance.now() - began;
  ok(took >= 95 && took < 2_000, `${took} ms`);
  deepEqual(lines.map(({ level, answers }) => [level, answers]), [["INFO", 1], ["WARN", 1]]);
  await running.shutdown();
});

Deno.test("restarts of the engine are logged as they happen", async () => {
  const lines = collectLog();
  const engine = new FakeEngine();
  const failed = failureOf(engine);
  Object.defineProperty(engine, "restarts", { value: 2 });
  while (lines.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  engine.state = "failed";
  await failed;
  deepEqual(lines.map(({ level, restarts }) => [level, restarts]), [["WARN", 2]]);
});

Deno.test("an engine that has failed for good ends the process with status 4", async () => {
  const lines = collectLog();
  const engine = new FakeEngine();
  const answers = new AnswerCount();
  const failed = failureOf(engine);
  engine.state = "failed";
  engine.failure = new EngineError("run the engine: wanted a sign of life, found none");
  await failed;
  const last = Promise.withResolvers<void>();
  answers.add(last.promise);
  setTimeout(last.resolve, 20);
  equal(await exitCode(engine, answers), 4);
  equal(answers.count, 0);
  deepEqual(lines.map(({ level, fault }) => [level, fault]), [["ERROR", engine.failure.message]]);
});
