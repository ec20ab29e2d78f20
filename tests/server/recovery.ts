/** Faults on command against a running engine with the embedded model. */
import assert from "node:assert/strict";
import type { Engine, GenerateRequest } from "../../runtime/engine/engine.ts";
import type { Fault, FaultPlace } from "../../runtime/engine/fault.ts";
import { GREEDY_SAMPLING } from "../../runtime/engine/sampling.ts";
import { startEngine } from "../../runtime/engine/start.ts";
import { KedgeError } from "../../runtime/errors.ts";

const MODEL = new URL("../../models/kedge-tiny", import.meta.url).pathname;
export const TOKENS = 32;
/** Serving again after a fault was noticed. */
export const RECOVERY_MS = 2_000;
const WATCHDOG_MS = 400;

function request(overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    promptIds: Uint32Array.of(70, 300, 11, 42, 9),
    maxTokens: TOKENS,
    sampling: GREEDY_SAMPLING,
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
    ...overrides,
  };
}

export type DeviceKind = "cpu" | "webgpu";

export function start(
  device: DeviceKind,
  faults: readonly Fault[],
  options: { readonly deathsMax?: number } = {},
): Promise<Engine> {
  const common = { modelDirectory: MODEL, contextTokens: 1_024, slots: 4 };
  return startEngine({ ...common, device, faults, watchdogMs: WATCHDOG_MS, ...options });
}

export async function tokensOf(engine: Engine, asked = request()): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of engine.generate(asked)) {
    if (event.type === "token") tokens.push(event.id);
  }
  return tokens;
}

/** Runs until the engine takes requests again; milliseconds it took. */
export async function untilReady(engine: Engine): Promise<number> {
  const began = performance.now();
  while (engine.state !== "ready") {
    assert.ok(performance.now() - began < 10_000, `still ${engine.state}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - began;
}

export function assertIdle(engine: Engine): void {
  const { running, queued, freeSlots, freePages, pages } = engine.stats;
  assert.deepEqual([running, queued, freeSlots, freePages], [0, 0, 4, pages]);
}

/** What a run without faults gives. */
export async function golden(device: DeviceKind): Promise<number[]> {
  const engine = await start(device, []);
  try {
    return await tokensOf(engine);
  } finally {
    await engine.close();
  }
}

/**
 * One fault in the middle of several requests: all end, and the next text is right. Returns the
 * milliseconds until the engine took requests again.
 */
export async function survive(
  device: DeviceKind,
  place: FaultPlace,
  step: number,
  wanted: readonly number[],
): Promise<number> {
  const engine = await start(device, [{ place, step, life: 0 }]);
  try {
    const results = await Promise.allSettled(Array.from({ length: 6 }, () => tokensOf(engine)));
    for (const result of results) {
      if (result.status === "fulfilled") assert.deepEqual(result.value, wanted);
      else assert.ok(result.reason instanceof KedgeError, String(result.reason));
    }
    assert.ok(results.some(({ status }) => status === "rejected"), "the fault did not come");
    const recovery = await untilReady(engine);
    assert.deepEqual(await tokensOf(engine), wanted);
    assert.equal(engine.restarts, 1);
    assert.equal(engine.failure, null);
    assertIdle(engine);
    return recovery;
  } finally {
    await engine.close();
  }
}
