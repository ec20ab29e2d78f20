import type { Gpu } from "./gpu/gpu.ts";
import { kdaWidths } from "./kda_shape.ts";
import type { KdaShape } from "./types.ts";

/** The state of one KDA layer for all slots, f32. */
export interface KdaLayerState {
  /** [slots][headCount][keyDim][valueDim]. */
  readonly recurrent: GPUBuffer;
  /** Projections before the convolution, oldest first: [slots][taps - 1][q | k | v]. */
  readonly convolution: GPUBuffer;
}

/** Floats of one slot in the two buffers of a layer. */
export function kdaStateFloats(shape: KdaShape): { recurrent: number; convolution: number } {
  return {
    recurrent: shape.headCount * shape.keyDim * shape.valueDim,
    convolution: (shape.convolutionTaps - 1) * kdaWidths(shape).mixed,
  };
}

/** Zeroed state of one layer. Throws, naming the slots that fit one binding. */
export function allocateKdaState(gpu: Gpu, shape: KdaShape, slots: number): KdaLayerState {
  const floats = kdaStateFloats(shape);
  const limit = gpu.bufferBytesMax;
  const fit = Math.floor(limit / (4 * Math.max(floats.recurrent, floats.convolution)));
  if (slots > fit) {
    throw new Error(
      `allocate KDA states on "${gpu.description}": wanted at most ${fit} slots, ` +
        `which one binding of ${limit} bytes holds, found ${slots}`,
    );
  }
  return {
    recurrent: gpu.buffer("KDA recurrent states", 4 * slots * floats.recurrent),
    convolution: gpu.buffer("KDA convolution states", 4 * slots * floats.convolution),
  };
}
