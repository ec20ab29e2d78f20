/** A limit that is set and lifted often: it passes once, and only when nobody lifted it. */
import { equal, ok } from "node:assert/strict";
import { Deadline } from "../../runtime/http/deadline.ts";

const LIMIT_MS = 40;
const pause = (milliseconds: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

Deno.test("deadline: passes once, this long after it was last set", async () => {
  let passed: number[] = [];
  const deadline = new Deadline(LIMIT_MS, () => passed.push(performance.now()));
  let last = 0;
  for (let turn = 0; turn < 10; turn++) {
    deadline.set();
    last = performance.now();
    await pause(LIMIT_MS / 8);
    equal(passed.length, 0);
    deadline.lift();
  }
  deadline.set();
  last = performance.now();
  await pause(3 * LIMIT_MS);
  equal(passed.length, 1);
  ok(passed[0]! - last >= LIMIT_MS - 2, `passed ${passed[0]! - last} ms after it was set`);
  passed = [];
  deadline.set();
  await pause(2 * LIMIT_MS);
  equal(passed.length, 1, "it may be set again");
  deadline.close();
});

Deno.test("deadline: never passes once it is lifted or closed", async () => {
  let passed = 0;
  const lifted = new Deadline(LIMIT_MS, () => passed++);
  const closed = new Deadline(LIMIT_MS, () => passed++);
  lifted.set();
  closed.set();
  lifted.lift();
  closed.close();
  await pause(3 * LIMIT_MS);
  equal(passed, 0);
});
