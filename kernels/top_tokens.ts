import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import keySource from "./lib/logit_key.wgsl" with { type: "text" };
import thresholdSource from "./lib/top_threshold.wgsl" with { type: "text" };
import { logitSubsets } from "./logit_parts.ts";
import source from "./top_tokens.wgsl" with { type: "text" };

const PARAMS = { width: "u32", subsets: "u32" } as const;
/** Items that it keeps, and the least threads of a workgroup. */
export const BEST_TOKENS = 256;
/** u32 words of an item: key and id. */
export const ITEM_WORDS = 2;
/** Threads of a workgroup, where the adapter has so many. */
const THREADS_MAX = 1_024;
const HITS = 512;
const SUBSET = 64;
const BINS = 1_024;
const ITEMS = 1_024;
const WORKGROUP_BYTES = 4 * (BINS + HITS + ITEM_WORDS * ITEMS + 64);

export type TopTokensPipeline = Pipeline<typeof PARAMS>;

export const topTokensKernel = defineKernel({
  name: "top_tokens",
  source,
  preludes: [
    { name: "lib/logit_key.wgsl", source: keySource },
    { name: "lib/top_threshold.wgsl", source: thresholdSource },
  ],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export function compileTopTokens(gpu: Gpu): Promise<TopTokensPipeline> {
  checkWorkgroupMemory("top_tokens", WORKGROUP_BYTES, gpu.limits);
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX } = gpu.limits;
  const most = Math.min(maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX, THREADS_MAX);
  return topTokensKernel.compile(gpu, {}, undefined, { THREADS: most });
}

/**
 * best[row] = the 256 best of logits[row] in order: largest first, of equal ones the lower id
 * first; logits f32 [rowCount][width], maxima as `sumParts` gives them, best [rowCount][256] of key
 * and id, see top_tokens.wgsl.
 */
export function topTokens(
  recorder: Recorder,
  pipeline: TopTokensPipeline,
  logits: GPUBuffer,
  maxima: GPUBuffer,
  best: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  const subsets = logitSubsets(width);
  const items = Math.min(subsets, HITS) * SUBSET;
  // With 256 threads; four rounds of each kind, each with 100 turns over its bins.
  const turns = Math.ceil((6 * subsets + 6 * items + width) / BEST_TOKENS);
  checkLoops("top_tokens", turns + 8 * 100 + 55 * 2);
  const buffers = [read(logits), read(maxima), write(best)];
  recorder.dispatch(pipeline, buffers, { width, subsets }, [rowCount]);
}

/** The logit of a key: the inverse of `key_of` in lib/logit_key.wgsl. */
export function logitsOfKeys(keys: Uint32Array): Float32Array {
  const bits = keys.map((key) => (key >>> 31) === 1 ? key & 0x7fff_ffff : ~key);
  return new Float32Array(bits.buffer, bits.byteOffset, bits.length);
}
