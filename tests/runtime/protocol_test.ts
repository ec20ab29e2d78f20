/** What a step made, as it crosses the threads. */
import assert from "node:assert/strict";
import { OverloadedError } from "../../runtime/errors.ts";
import {
  packEvents,
  type RequestEvent,
  toWire,
  unpackEvents,
} from "../../runtime/engine/protocol.ts";

Deno.test("events keep their order and contents when packed", () => {
  const timings = { queuedMs: 1, prefillMs: 2, decodeMs: 3 };
  const logprob = { id: 4, logprob: -0.5, top: [] };
  const error = new OverloadedError("full");
  const events: RequestEvent[] = [
    { id: 1, event: { type: "progress", processed: 8, total: 8 } },
    { id: 1, event: { type: "token", id: 163_839, logprob: null } },
    { id: 2, event: { type: "token", id: 0, logprob: null } },
    { id: 2 ** 40, event: { type: "token", id: 4, logprob } },
    { id: 2, event: { type: "done", reason: "length", timings } },
    { id: 3, error: toWire(error) },
    { id: 1, event: { type: "token", id: 5, logprob: null } },
  ];
  const packed = structuredClone(packEvents(events));
  assert.equal(packed.filter((item) => typeof item === "number").length, 6);
  const seen: unknown[] = [];
  unpackEvents(packed, (id, event) => seen.push([id, event]));
  assert.deepEqual(
    seen,
    events.map((item) => [item.id, "event" in item ? item.event : error]),
  );
});

Deno.test("no events are packed to none", () => {
  unpackEvents(packEvents([]), () => assert.fail("an event"));
});
