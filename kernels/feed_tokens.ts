import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import source from "./feed_tokens.wgsl" with { type: "text" };

const PARAMS = { row_count: "u32" } as const;
const THREADS = 64;
/** Added to a row of `best`, it stands for that row's best token. */
export const FEED = 0x8000_0000;

export type FeedTokensPipeline = Pipeline<typeof PARAMS>;

export const feedTokensKernel = defineKernel({
  name: "feed_tokens",
  source,
  bindings: ["read", "write"],
  params: PARAMS,
});

export function compileFeedTokens(gpu: Gpu): Promise<FeedTokensPipeline> {
  return feedTokensKernel.compile(gpu);
}

/** tokens[row] = the best token of row r of `best` (see top_tokens.wgsl), where it is FEED + r. */
export function feedTokens(
  recorder: Recorder,
  pipeline: FeedTokensPipeline,
  best: GPUBuffer,
  tokens: GPUBuffer,
  rowCount: number,
): void {
  const uses = [read(best), write(tokens)];
  recorder.dispatch(pipeline, uses, { row_count: rowCount }, [Math.ceil(rowCount / THREADS)]);
}
