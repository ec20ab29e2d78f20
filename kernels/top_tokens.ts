import { checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./top_tokens.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32", width: "u32", from_logits: "u32" } as const;
/** Items that one workgroup sorts. */
const PART = 1_024;
/** Items that it keeps. */
export const BEST_TOKENS = 256;
/** u32 words of an item: key and id. */
export const ITEM_WORDS = 2;

export type TopTokensPipeline = Pipeline<typeof PARAMS>;

export const topTokensKernel = defineKernel({
  name: "top_tokens",
  source,
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compileTopTokens(gpu: Gpu): Promise<TopTokensPipeline> {
  checkWorkgroupMemory("top_tokens", 4 * ITEM_WORDS * PART, gpu.limits);
  return topTokensKernel.compile(gpu);
}

/** Parts of each pass over rows of `width` logits; the last is 1. */
export function partsOfPasses(width: number): number[] {
  const parts = [Math.ceil(width / PART)];
  while (parts.at(-1)! > 1) parts.push(Math.ceil(parts.at(-1)! * BEST_TOKENS / PART));
  return parts;
}

/** The buffers between passes: [rows][parts][256][2], larger first. */
export interface TopTokensScratch {
  readonly even: GPUBuffer;
  readonly odd: GPUBuffer;
}

/**
 * best[row] = the 256 best of logits[row] in order: largest first, of equal ones the lower id
 * first; logits f32 [rowCount][width], best [rowCount][256] of key and id, see top_tokens.wgsl.
 */
export function topTokens(
  recorder: Recorder,
  pipeline: TopTokensPipeline,
  logits: GPUBuffer,
  scratch: TopTokensScratch,
  best: GPUBuffer,
  width: number,
  rowCount: number,
): void {
  const passes = partsOfPasses(width);
  let [from, items] = [logits, width];
  passes.forEach((parts, pass) => {
    const to = parts === 1 ? best : pass % 2 === 0 ? scratch.even : scratch.odd;
    const params = { row_count: rowCount, width: items, from_logits: pass === 0 ? 1 : 0 };
    recorder.dispatch(pipeline, [read(from), write(to)], params, [parts, rowCount]);
    [from, items] = [to, parts * BEST_TOKENS];
  });
}

/** The logit of a key: the inverse of `key_of` in top_tokens.wgsl. */
export function logitsOfKeys(keys: Uint32Array): Float32Array {
  const bits = keys.map((key) => (key >>> 31) === 1 ? key & 0x7fff_ffff : ~key);
  return new Float32Array(bits.buffer, bits.byteOffset, bits.length);
}
