import assert from "node:assert/strict";
import { Admission } from "../../runtime/engine/admission.ts";
import { OverloadedError, RateLimitError } from "../../runtime/errors.ts";

const NO_LIMIT = { requests: null };

function make(limits: { slots?: number; queueRequests?: number; queueTokens?: number } = {}) {
  return new Admission({ slots: 2, queueRequests: 3, queueTokens: 1_000, ...limits });
}

Deno.test("Admission takes as many requests as run and wait, and no more", () => {
  const admission = make();
  const places = [1, 2, 3, 4, 5].map(() => admission.reserve("", NO_LIMIT, 10));
  assert.throws(
    () => admission.reserve("", NO_LIMIT, 10),
    (error) => error instanceof OverloadedError && error.status === 503,
  );
  admission.release(places[2]!);
  admission.release(places[2]!); // once is enough
  assert.equal(admission.count, 4);
  admission.reserve("", NO_LIMIT, 10);
  assert.throws(() => admission.reserve("", NO_LIMIT, 10), OverloadedError);
});

Deno.test("Admission bounds the prompt tokens that wait, but takes any one request", () => {
  const admission = make();
  const place = admission.reserve("", NO_LIMIT, 50_000);
  assert.throws(() => admission.reserve("", NO_LIMIT, 1), /wanted at most 1000 prompt tokens/);
  admission.release(place);
  admission.reserve("", NO_LIMIT, 999);
  admission.reserve("", NO_LIMIT, 1);
  assert.throws(() => admission.reserve("", NO_LIMIT, 1), OverloadedError);
});

Deno.test("Admission holds each owner to its own limit with 429", () => {
  const admission = make({ queueRequests: 100 });
  const place = admission.reserve("a", { requests: 2 }, 1);
  admission.reserve("a", { requests: 2 }, 1);
  assert.throws(
    () => admission.reserve("a", { requests: 2 }, 1),
    (error) => error instanceof RateLimitError && error.status === 429,
  );
  admission.reserve("b", { requests: 1 }, 1);
  admission.release(place);
  admission.reserve("a", { requests: 2 }, 1);
  assert.equal(admission.count, 3);
});

Deno.test("Admission's Retry-After follows backlog and measured time, in whole seconds", () => {
  const admission = make();
  const refusal = () => {
    try {
      admission.reserve("", NO_LIMIT, 1);
    } catch (error) {
      return (error as OverloadedError).retryAfterSeconds;
    }
    return assert.fail("not refused");
  };
  assert.equal(admission.retryAfterSeconds(), 1);
  for (let place = 0; place < 5; place++) admission.reserve("", NO_LIMIT, 1);
  for (let request = 0; request < 60; request++) admission.learn(40);
  assert.equal(refusal(), 40);
  for (let request = 0; request < 60; request++) admission.learn(0.01);
  assert.equal(refusal(), 1);
  for (let request = 0; request < 60; request++) admission.learn(1e6);
  assert.equal(refusal(), 300);
});
