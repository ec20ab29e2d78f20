/** What tests of Generation share: the fake device's engine, requests, and what came of them. */
import assert from "node:assert";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import type { RequestEvent } from "../../runtime/engine/protocol.ts";
import { GREEDY_SAMPLING, type TokenSampler } from "../../runtime/engine/sampling.ts";
import type { Capacity } from "../../runtime/model/device.ts";
import { FAKE_SHAPE, FakeDevice, nextToken, VOCABULARY } from "./fake_device.ts";

/** Greedy, with exact log-probabilities. */
export const SAMPLER: TokenSampler = {
  sample: (logits) => logits.indexOf(Math.max(...logits)),
  sampleCandidates: () => null,
  logprobs(logits, id) {
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    return { logprob: logits[id]! - Math.log(sum), top: [] };
  },
};

export function capacity(overrides: Partial<Capacity> = {}): Capacity {
  return {
    slots: 4,
    pages: 64,
    pageTokens: 4,
    rows: 16,
    logitRows: 8,
    sequences: 4,
    pagesPerSequence: 64,
    logitEdits: 97,
    latentFormat: "f16",
    ...overrides,
  };
}

export function request(
  promptIds: number[],
  overrides: Partial<GenerateRequest> = {},
): GenerateRequest {
  return {
    promptIds: Uint32Array.from(promptIds),
    maxTokens: 12,
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

export function make(limits: Capacity) {
  const device = new FakeDevice(limits);
  const { pieceTokens } = device;
  const generation = new Generation(device, FAKE_SHAPE, SAMPLER, { ...limits, pieceTokens });
  return { device, generation };
}

/** Runs until idle; events by request. */
export async function drain(generation: Generation): Promise<Map<number, RequestEvent[]>> {
  const events = new Map<number, RequestEvent[]>();
  for (let steps = 0; steps < 10_000; steps++) {
    const made = await generation.step();
    if (made === null) return events;
    for (const event of made) events.set(event.id, [...events.get(event.id) ?? [], event]);
  }
  assert.fail("the engine never gets done");
}

export function tokensOf(events: readonly RequestEvent[]): number[] {
  return events.flatMap((item) =>
    "event" in item && item.event.type === "token" ? [item.event.id] : []
  );
}

/** What the fake model says alone: the truth that batching must not change. */
export function alone(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let index = 0; index < count; index++) tokens.push(nextToken(tokens));
  return tokens.slice(prompt.length);
}

export function somePrompt(length: number, seed: number): number[] {
  return Array.from(
    { length },
    (_, index) => (seed * 31 + index * 17 + index * index) % VOCABULARY,
  );
}
