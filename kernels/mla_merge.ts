import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import { type AttentionBatch, valueQuads } from "./mla_attention.ts";
import source from "./mla_merge.wgsl" with { type: "text" };
import type { MlaShape } from "./types.ts";
import { segmentCount } from "./weight_preludes.ts";

const THREADS = 64;

const PARAMS = {
  first_row: "u32",
  row_start: "u32",
  head_count: "u32",
  latent_dim: "u32",
  value_quads: "u32",
  context_quads: "u32",
  split_tokens: "u32",
  splits: "u32",
} as const;

export type MlaMergePipeline = Pipeline<typeof PARAMS>;

export const mlaMergeKernel = defineKernel({
  name: "mla_merge",
  source,
  bindings: ["read", "read", "read", "write"],
  params: PARAMS,
});

export interface MlaMergeBuffers {
  /** read: `StepBuffers.rows`. */
  readonly rows: BufferUse;
  /** read: what `mlaAttention` left. */
  readonly sums: BufferUse;
  readonly maxima: BufferUse;
  /** write: [rows][headCount][`contextQuads`] quads, zeros after the latent's channels. */
  readonly context: BufferUse;
}

/** Quads of an attended latent: whole segments, as the value weights' rows are padded. */
export function contextQuads({ latentDim }: MlaShape): number {
  return 4 * segmentCount(latentDim);
}

export function compileMlaMerge(gpu: Gpu): Promise<MlaMergePipeline> {
  return mlaMergeKernel.compile(gpu);
}

/** Joins the splits of a batch's rows. */
export function mlaMerge(
  recorder: Recorder,
  pipeline: MlaMergePipeline,
  buffers: MlaMergeBuffers,
  shape: MlaShape,
  batch: AttentionBatch,
): void {
  const quads = contextQuads(shape);
  const turns = 2 * batch.splits + Math.ceil(quads / THREADS) * (1 + batch.splits);
  checkLoops("mla_merge", turns);
  recorder.dispatch(
    pipeline,
    [buffers.rows, buffers.sums, buffers.maxima, buffers.context],
    {
      first_row: batch.firstRow,
      row_start: batch.rowStart,
      head_count: shape.headCount,
      latent_dim: shape.latentDim,
      value_quads: valueQuads(shape),
      context_quads: quads,
      split_tokens: batch.splitTokens,
      splits: batch.splits,
    },
    [shape.headCount, batch.rowCount],
  );
}
