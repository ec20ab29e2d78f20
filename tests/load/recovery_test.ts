/** What becomes of requests and server when the engine dies: every fault on command. */
import assert from "node:assert/strict";
import { KedgeError } from "../../runtime/errors.ts";
import {
  assertIdle,
  golden,
  RECOVERY_MS,
  start,
  survive,
  TOKENS,
  tokensOf,
  untilReady,
} from "../server/recovery.ts";

Deno.test("engine: a device lost at any step ends the requests and serves again", async () => {
  const wanted = await golden("cpu");
  let slowest = 0;
  for (let step = 1; step <= TOKENS; step++) {
    slowest = Math.max(slowest, await survive("cpu", "device_lost", step, wanted));
  }
  console.log(`serving again after at most ${slowest.toFixed(0)} ms`);
  assert.ok(slowest <= RECOVERY_MS);
});

for (const place of ["out_of_memory", "worker_throw", "worker_exit", "worker_stuck"] as const) {
  Deno.test(`engine: ${place} ends the requests and serves again`, async () => {
    const wanted = await golden("cpu");
    const recovery = await survive("cpu", place, 7, wanted);
    assert.ok(recovery <= RECOVERY_MS, `${recovery} ms`);
  });
}

Deno.test("engine: logits that are not finite end their request alone", async () => {
  const wanted = await golden("cpu");
  const engine = await start("cpu", [{ place: "nan_logits", step: 5, life: 0 }]);
  try {
    const results = await Promise.allSettled([1, 2, 3].map(() => tokensOf(engine)));
    assert.deepEqual(results.map(({ status }) => status), ["rejected", "fulfilled", "fulfilled"]);
    assert.equal((results[0] as PromiseRejectedResult).reason.code, "non_finite_logits");
    for (const result of results.slice(1)) {
      assert.deepEqual((result as PromiseFulfilledResult<number[]>).value, wanted);
    }
    assert.deepEqual(await tokensOf(engine), wanted);
    assert.equal(engine.restarts, 0);
    assertIdle(engine);
  } finally {
    await engine.close();
  }
});

Deno.test("engine: a third death within a minute is for good", async () => {
  const faults = [0, 1, 2].map((life) => ({ place: "device_lost", step: 2, life }) as const);
  const engine = await start("cpu", faults);
  try {
    for (let death = 1; death <= 3; death++) {
      await assert.rejects(tokensOf(engine), KedgeError);
      if (death < 3) await untilReady(engine);
    }
    assert.equal(engine.state, "failed");
    assert.ok(engine.failure !== null);
    assert.throws(() => engine.reserve("", { requests: null }, 1), KedgeError);
    await assert.rejects(tokensOf(engine), KedgeError);
  } finally {
    await engine.close();
  }
});

Deno.test("engine: memory is flat over 20 restarts", async () => {
  const lives = Array.from({ length: 20 }, (_, life) => life);
  const faults = lives.map((life) => ({ place: "device_lost", step: 3, life }) as const);
  const engine = await start("cpu", faults, { deathsMax: Infinity });
  try {
    const bytes: number[] = [];
    for (const life of lives) {
      await assert.rejects(tokensOf(engine), KedgeError);
      assert.ok(await untilReady(engine) <= RECOVERY_MS, `life ${life}`);
      bytes.push(Deno.memoryUsage().rss);
    }
    const [early, late] = [Math.max(...bytes.slice(4, 8)), bytes.at(-1)!];
    console.log(
      `resident: ${(early / 2 ** 20).toFixed(0)} MiB early, ${(late / 2 ** 20).toFixed(0)} late`,
    );
    assert.ok(late - early < 64 * 2 ** 20);
  } finally {
    await engine.close();
  }
});
