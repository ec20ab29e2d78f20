/** Prefill and decode speed, seen from where the HTTP layer stands. */
import type { Engine, GenerateRequest } from "../engine/engine.ts";
import { GREEDY_SAMPLING } from "../engine/sampling.ts";
import { median, randomIntegers } from "./statistics.ts";

export interface PrefillSpeed {
  readonly tokensPerSecond: number;
  readonly firstTokenMs: number;
}

export interface DecodeSpeed {
  /** Summed over the sequences. */
  readonly tokensPerSecond: number;
  readonly dispatchesPerStep: number;
}

const DECODE_PROMPT_TOKENS = 16;
const DECODE_TOKENS = 128;

/** Medians over `runs` prompts of random tokens, after one to warm up. Null: it does not fit. */
export async function measurePrefill(
  engine: Engine,
  promptTokens: number,
  runs: number,
): Promise<PrefillSpeed | null> {
  if (promptTokens + 1 > engine.model.contextLength) return null;
  const rates: number[] = [];
  const firstTokens: number[] = [];
  for (let run = -1; run < runs; run++) {
    const prefillMs = await elapsedMs(engine, greedyRequest(engine, promptTokens, 0, 2 * run + 2));
    const firstMs = await elapsedMs(engine, greedyRequest(engine, promptTokens, 1, 2 * run + 3));
    if (run < 0) continue;
    rates.push(promptTokens / prefillMs * 1000);
    firstTokens.push(firstMs);
  }
  return { tokensPerSecond: median(rates), firstTokenMs: median(firstTokens) };
}

/**
 * Medians over `runs` runs of `batch` sequences, after one to warm up. Counts the tokens between
 * the moment when all sequences decode and the moment when the first one ends. Null: does not fit.
 */
export async function measureDecode(
  engine: Engine,
  batch: number,
  runs: number,
): Promise<DecodeSpeed | null> {
  if (DECODE_PROMPT_TOKENS + DECODE_TOKENS > engine.model.contextLength) return null;
  const rates: number[] = [];
  for (let run = -1; run < runs; run++) {
    const times = await Promise.all(
      Array.from({ length: batch }, (_, index) => tokenTimes(engine, 1 + run * batch + index)),
    );
    const begin = Math.max(...times.map((sequence) => sequence[0]!));
    const end = Math.min(...times.map((sequence) => sequence.at(-1)!));
    const counted = times.flat().filter((time) => time > begin && time <= end).length;
    if (run >= 0) rates.push(counted / (end - begin) * 1000);
  }
  return {
    tokensPerSecond: median(rates),
    dispatchesPerStep: engine.stats.lastStepDispatches,
  };
}

/** When each token of one generation arrived, in ms. */
async function tokenTimes(engine: Engine, seed: number): Promise<number[]> {
  const times: number[] = [];
  const request = greedyRequest(engine, DECODE_PROMPT_TOKENS, DECODE_TOKENS, seed);
  for await (const event of engine.generate(request)) {
    if (event.type === "token") times.push(performance.now());
  }
  return times;
}

async function elapsedMs(engine: Engine, request: GenerateRequest): Promise<number> {
  const began = performance.now();
  for await (const _ of engine.generate(request));
  return performance.now() - began;
}

/** A prompt of random tokens, continued greedily; no token ends it. */
function greedyRequest(
  engine: Engine,
  promptTokens: number,
  maxTokens: number,
  seed: number,
): GenerateRequest {
  return {
    promptIds: Uint32Array.from(randomIntegers(seed, engine.model.vocabularySize, promptTokens)),
    maxTokens,
    sampling: GREEDY_SAMPLING,
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
  };
}
