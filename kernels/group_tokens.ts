import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./group_tokens.wgsl" with { type: "text" };

const PARAMS = {
  pair_count: "u32",
  tile_size: "u32",
  tile_limit: "u32",
  use_offset: "u32",
} as const;

const THREADS = 128;

/** A pipeline for a number of experts. */
export interface GroupTokensPipeline {
  readonly pipeline: Pipeline<typeof PARAMS>;
  readonly expertCount: number;
}

export const groupTokensKernel = defineKernel({
  name: "group_tokens",
  source,
  bindings: ["read", "write", "write", "write"],
  params: PARAMS,
});

export async function compileGroupTokens(
  gpu: Gpu,
  expertCount: number,
): Promise<GroupTokensPipeline> {
  checkWorkgroupMemory("group_tokens", 4 * expertCount + 12 * THREADS, gpu.limits);
  return { pipeline: await groupTokensKernel.compile(gpu, { EXPERTS: expertCount }), expertCount };
}

/** Most tiles that `pairCount` pairs of `expertCount` experts can need. */
export function tileLimit(pairCount: number, expertCount: number, tileSize: number): number {
  return Math.min(pairCount, Math.floor(pairCount / tileSize) + expertCount);
}

/** What `groupTokens` reads and writes. */
export interface Grouping {
  /** u32 [pairCount]: each pair's expert, below the pipeline's expert count. */
  readonly experts: GPUBuffer;
  /** u32 [pairCount]: pairs by expert, then by number. */
  readonly order: GPUBuffer;
  /** u32 [tileLimit][4]: (expert, start, end, 0), positions [start, end) of `order`. */
  readonly tiles: GPUBuffer;
  /** u32 [..]: pairs of each expert are added to [useOffset, + expertCount). */
  readonly expertUse: GPUBuffer;
  readonly useOffset: number;
}

/** Sorts pairs by expert and cuts them into tiles of at most `tileSize` pairs of one expert. */
export function groupTokens(
  recorder: Recorder,
  { pipeline, expertCount }: GroupTokensPipeline,
  { experts, order, tiles, expertUse, useOffset }: Grouping,
  pairCount: number,
  tileSize: number,
): void {
  const limit = tileLimit(pairCount, expertCount, tileSize);
  checkLoops(
    "group_tokens",
    2 * Math.ceil(pairCount / THREADS) + 2 * Math.ceil((expertCount + limit) / THREADS) + 142,
  );
  recorder.dispatch(
    pipeline,
    [read(experts), write(order), write(tiles), write(expertUse)],
    { pair_count: pairCount, tile_size: tileSize, tile_limit: limit, use_offset: useOffset },
    [pairCount === 0 ? 0 : expertCount],
  );
}
