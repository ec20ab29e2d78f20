import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline, type Prelude } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type LatentFormat, latentPrelude, latentQuads } from "./latent_cache.ts";
import latentEntry from "./lib/latent_entry.wgsl" with { type: "text" };
import workgroupSum from "./lib/workgroup_sum.wgsl" with { type: "text" };
import source from "./mla_latent.wgsl" with { type: "text" };
import type { MlaShape } from "./types.ts";

const THREADS = 128;

const PARAMS = {
  latent_dim: "u32",
  shared_key_dim: "u32",
  quads: "u32",
  page_tokens: "u32",
  epsilon: "f32",
} as const;

export type MlaLatentPipeline = Pipeline<typeof PARAMS>;

export const mlaLatentKernel = defineKernel({
  name: "mla_latent",
  source,
  bindings: ["read", "read", "read", "read", "write"],
  params: PARAMS,
});

export interface MlaLatentBuffers {
  /** read: latent | shared key before the norm, [rows][latentDim + sharedKeyDim]. */
  readonly compressed: BufferUse;
  /** read: [latentDim]. */
  readonly weight: BufferUse;
  /** read: `StepBuffers.rows` and `StepBuffers.pages`. */
  readonly rows: BufferUse;
  readonly pages: BufferUse;
  /** write: the layer's cache. */
  readonly latents: BufferUse;
}

/** What writes entries of the cache. */
export function entryPieces(format: LatentFormat): Prelude[] {
  return [
    latentPrelude(format),
    { name: "lib/workgroup_sum.wgsl", source: workgroupSum },
    { name: "lib/latent_entry.wgsl", source: latentEntry },
  ];
}

export function compileMlaLatent(gpu: Gpu, format: LatentFormat): Promise<MlaLatentPipeline> {
  return mlaLatentKernel.compile(gpu, {}, entryPieces(format));
}

/** Writes each row's entry to its place in the cache. */
export function mlaLatent(
  recorder: Recorder,
  pipeline: MlaLatentPipeline,
  buffers: MlaLatentBuffers,
  shape: MlaShape,
  { pageTokens, epsilon }: { readonly pageTokens: number; readonly epsilon: number },
  rowCount: number,
): void {
  const quads = latentQuads(shape);
  checkLoops("mla_latent", Math.ceil(shape.latentDim / THREADS) + Math.ceil(quads / THREADS) + 7);
  recorder.dispatch(
    pipeline,
    [buffers.compressed, buffers.weight, buffers.rows, buffers.pages, buffers.latents],
    {
      latent_dim: shape.latentDim,
      shared_key_dim: shape.sharedKeyDim,
      quads,
      page_tokens: pageTokens,
      epsilon,
    },
    [rowCount],
  );
}
