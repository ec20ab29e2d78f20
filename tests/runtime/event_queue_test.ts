import assert from "node:assert/strict";
import type { GenerateEvent } from "../../runtime/engine/engine.ts";
import { EventQueue } from "../../runtime/engine/event_queue.ts";
import { EngineError } from "../../runtime/errors.ts";
import { PENDING_EVENTS_MAX } from "../../runtime/limits.ts";

const token = (id: number): GenerateEvent => ({ type: "token", id, logprob: null });

function make(slowReaderMs?: number, signal?: AbortSignal) {
  const told: string[] = [];
  const queue = new EventQueue({
    onPause: (paused) => told.push(paused ? "pause" : "resume"),
    onStop: () => told.push("stop"),
    onEnd: (isDone) => told.push(isDone ? "done" : "end"),
    signal,
    slowReaderMs,
  });
  queue.onReady = () => told.push("ready");
  return { queue, told };
}

Deno.test("EventQueue delivers in order and ends with the error", () => {
  const { queue, told } = make();
  queue.push(token(1));
  queue.push(token(2));
  assert.deepEqual(told, [], "nobody is told before the step's events are there");
  queue.wake();
  assert.deepEqual([queue.take(), queue.take(), queue.take()], [token(1), token(2), null]);
  queue.wake();
  queue.push(new EngineError("it broke"));
  queue.wake();
  assert.throws(() => queue.take(), /it broke/);
  queue.close();
  assert.deepEqual(told, ["ready", "ready", "end"]);
});

Deno.test("EventQueue tells once how it ended", () => {
  const done: GenerateEvent = {
    type: "done",
    reason: "length",
    timings: { queuedMs: 0, prefillMs: 0, decodeMs: 0 },
  };
  const { queue, told } = make();
  queue.push(done);
  assert.deepEqual([queue.take(), queue.take()], [done, null]);
  queue.close();
  assert.deepEqual(told, ["done"]);
  const left = make();
  left.queue.close();
  left.queue.close();
  assert.deepEqual(left.told, ["stop", "end"]);
});

Deno.test("EventQueue pauses a reader that is behind until it has caught up", () => {
  const { queue, told } = make();
  for (let id = 0; id < PENDING_EVENTS_MAX; id++) queue.push(token(id));
  queue.push(token(PENDING_EVENTS_MAX)); // of the step that was under way
  assert.deepEqual(told, ["pause"]);
  for (let id = 0; id <= PENDING_EVENTS_MAX; id++) assert.deepEqual(queue.take(), token(id));
  assert.deepEqual(told, ["pause", "resume"]);
  queue.close();
});

Deno.test("EventQueue cuts a reader off that never comes back", async () => {
  const { queue, told } = make(10);
  for (let id = 0; id < PENDING_EVENTS_MAX; id++) queue.push(token(id));
  await new Promise((resolve) => setTimeout(resolve, 40));
  assert.deepEqual(told, ["pause", "stop", "ready"]);
  queue.push(token(7)); // is not kept
  assert.throws(
    () => queue.take(),
    (error) => error instanceof EngineError && error.code === "slow_reader",
  );
});

Deno.test("EventQueue stops when its signal is aborted, and throws the reason", () => {
  const left = new AbortController();
  const { queue, told } = make(undefined, left.signal);
  queue.push(token(1));
  left.abort(new EngineError("it left"));
  assert.throws(() => queue.take(), /it left/);
  queue.close();
  assert.deepEqual(told, ["stop", "ready", "end"]);
});

Deno.test("EventQueue can be iterated over, to its end or not", async () => {
  const { queue, told } = make();
  const seen: GenerateEvent[] = [];
  setTimeout(() => {
    queue.push(token(2));
    queue.wake();
  });
  queue.push(token(1));
  for await (const event of queue) {
    seen.push(event);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, [token(1), token(2)]);
  assert.deepEqual(told, ["stop", "end"]);
});
