import { checkLoops } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import type { BufferUse, Recorder } from "./gpu/recorder.ts";
import sigmoid from "./lib/sigmoid.wgsl" with { type: "text" };
import source from "./short_conv.wgsl" with { type: "text" };
import { CHUNK_ROWS } from "./step_buffers.ts";

const THREADS = 64;

const PARAMS = {
  channels: "u32",
  key_channels: "u32",
  taps: "u32",
  tap_stride: "u32",
} as const;

export type ShortConvPipeline = Pipeline<typeof PARAMS>;

export const shortConvKernel = defineKernel({
  name: "short_conv",
  source,
  preludes: [{ name: "lib/sigmoid.wgsl", source: sigmoid }],
  bindings: ["read", "read", "read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface ShortConvShape {
  /** Channels of q, of k, and of q | k | v together. */
  readonly keyChannels: number;
  readonly channels: number;
  /** At most `CHUNK_ROWS` + 1. */
  readonly taps: number;
  /** Elements from one channel's taps to the next. */
  readonly tapStride: number;
}

export interface ShortConvBuffers {
  /** read: projections q | k | v, [rows][channels]. */
  readonly u: BufferUse;
  /** read: [channels of the part][tapStride], f32, oldest tap first. */
  readonly qTaps: BufferUse;
  readonly kTaps: BufferUse;
  readonly vTaps: BufferUse;
  /** read: `StepBuffers.chunks`. */
  readonly chunks: BufferUse;
  /** write: [slots][taps - 1][channels], moved on. */
  readonly tails: BufferUse;
  /** write: [rows][channels]. */
  readonly y: BufferUse;
}

/** Throws when there are more taps than a chunk's first rows can reach back over. */
export function compileShortConv(gpu: Gpu, taps: number): Promise<ShortConvPipeline> {
  if (taps < 1 || taps - 1 > CHUNK_ROWS) {
    throw new Error(`compile "short_conv": wanted 1 to ${CHUNK_ROWS + 1} taps, found ${taps}`);
  }
  return shortConvKernel.compile(gpu);
}

/** Convolution and SiLU of q, k and v of all rows in `chunkCount` chunks; the tails advance. */
export function shortConv(
  recorder: Recorder,
  pipeline: ShortConvPipeline,
  buffers: ShortConvBuffers,
  shape: ShortConvShape,
  chunkCount: number,
): void {
  checkLoops("short_conv", CHUNK_ROWS * (shape.taps + 1) + shape.taps);
  recorder.dispatch(
    pipeline,
    [
      buffers.u,
      buffers.qTaps,
      buffers.kTaps,
      buffers.vTaps,
      buffers.chunks,
      buffers.tails,
      buffers.y,
    ],
    {
      channels: shape.channels,
      key_channels: shape.keyChannels,
      taps: shape.taps,
      tap_stride: shape.tapStride,
    },
    [Math.ceil(shape.channels / THREADS), chunkCount],
  );
}
