import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type LatentFormat, latentPrelude, latentQuads } from "./latent_cache.ts";
import source from "./mla_gather.wgsl" with { type: "text" };
import type { MlaShape } from "./types.ts";

const THREADS = 128;

const PARAMS = {
  start: "u32",
  count: "u32",
  quads: "u32",
  page_tokens: "u32",
  page_start: "u32",
} as const;

export type MlaGatherPipeline = Pipeline<typeof PARAMS>;

export const mlaGatherKernel = defineKernel({
  name: "mla_gather",
  source,
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

export interface MlaGatherBuffers {
  /** read: the layer's cache. */
  readonly latents: BufferUse;
  /** read: `StepBuffers.pages`. */
  readonly pages: BufferUse;
  /** write: f32 [count][4 quads of an entry]. */
  readonly entries: BufferUse;
}

export function compileMlaGather(gpu: Gpu, format: LatentFormat): Promise<MlaGatherPipeline> {
  return mlaGatherKernel.compile(gpu, {}, [latentPrelude(format)]);
}

/** Entries of positions [start, start + count) of the sequence with pages from `pageStart` on. */
export function mlaGather(
  recorder: Recorder,
  pipeline: MlaGatherPipeline,
  buffers: MlaGatherBuffers,
  shape: MlaShape,
  range: {
    readonly start: number;
    readonly count: number;
    readonly pageStart: number;
    readonly pageTokens: number;
  },
): void {
  const quads = latentQuads(shape);
  recorder.dispatch(
    pipeline,
    [buffers.latents, buffers.pages, buffers.entries],
    {
      start: range.start,
      count: range.count,
      quads,
      page_tokens: range.pageTokens,
      page_start: range.pageStart,
    },
    spread(Math.ceil(range.count * quads / THREADS)),
  );
}
