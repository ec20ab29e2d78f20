import assert from "node:assert/strict";
import type { GenerateEvent } from "../../runtime/engine/engine.ts";
import { EventQueue } from "../../runtime/engine/event_queue.ts";
import { EngineError } from "../../runtime/errors.ts";
import { PENDING_EVENTS_MAX } from "../../runtime/limits.ts";

const token = (id: number): GenerateEvent => ({ type: "token", id, logprob: null });

function make(slowReaderMs?: number) {
  const told: string[] = [];
  const queue = new EventQueue({
    onPause: (paused) => told.push(paused ? "pause" : "resume"),
    onCutOff: () => told.push("cut off"),
    slowReaderMs,
  });
  return { queue, told };
}

Deno.test("EventQueue delivers in order and ends with the error", async () => {
  const { queue, told } = make();
  queue.push(token(1));
  queue.push(token(2));
  assert.deepEqual(await queue.next(undefined), token(1));
  assert.deepEqual(await queue.next(undefined), token(2));
  const later = queue.next(undefined);
  queue.push(new EngineError("it broke"));
  await assert.rejects(later, /it broke/);
  assert.deepEqual(told, []);
});

Deno.test("EventQueue pauses a reader that is behind until it has caught up", async () => {
  const { queue, told } = make();
  for (let id = 0; id < PENDING_EVENTS_MAX; id++) queue.push(token(id));
  queue.push(token(PENDING_EVENTS_MAX)); // of the step that was under way
  assert.deepEqual(told, ["pause"]);
  for (let id = 0; id <= PENDING_EVENTS_MAX; id++) {
    assert.deepEqual(await queue.next(undefined), token(id));
  }
  assert.deepEqual(told, ["pause", "resume"]);
  queue.close();
});

Deno.test("EventQueue cuts a reader off that never comes back", async () => {
  const { queue, told } = make(10);
  for (let id = 0; id < PENDING_EVENTS_MAX; id++) queue.push(token(id));
  await new Promise((resolve) => setTimeout(resolve, 40));
  assert.deepEqual(told, ["pause", "cut off"]);
  queue.push(token(7)); // is not kept
  await assert.rejects(
    queue.next(undefined),
    (error) => error instanceof EngineError && error.code === "slow_reader",
  );
});

Deno.test("EventQueue ends a wait when the client leaves", async () => {
  const { queue } = make();
  const left = new AbortController();
  const waiting = queue.next(left.signal);
  left.abort();
  queue.wake();
  assert.equal(await waiting, null);
});
