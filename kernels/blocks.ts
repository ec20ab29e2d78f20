import type { DecodeBlocks } from "./decode.ts";
import type { Embedding } from "./embedding.ts";
import type { DenseBlock, MoeBlock } from "./feed_forward.ts";
import type { Readback } from "./gpu/readback.ts";
import type { KdaBlock } from "./kda.ts";
import type { KdaLayerState } from "./kda_state.ts";
import type { Logits } from "./logits.ts";
import type { MlaBlock } from "./mla.ts";
import type { StepBuffers } from "./step_buffers.ts";
import type { Capacity } from "./types.ts";

/** Everything that `configure` makes. */
export interface Blocks {
  readonly capacity: Capacity;
  readonly step: StepBuffers;
  readonly embedding: Embedding;
  readonly kda: KdaBlock;
  readonly mla: MlaBlock;
  readonly dense: DenseBlock;
  readonly moe: MoeBlock;
  readonly logits: Logits;
  /** Sequences with one row go through these, where the model's weights allow it. */
  readonly decode: DecodeBlocks | null;
  readonly readback: Readback;
  /** Results of steps, in turns: one may be outstanding while the next is recorded. */
  readonly results: readonly Readback[];
  /** f32 [rows][hidden]. */
  readonly residual: GPUBuffer;
  /** By layer; undefined where the layer's mixer is the other one. */
  readonly kdaStates: readonly (KdaLayerState | undefined)[];
  readonly latents: readonly (GPUBuffer | undefined)[];
}
