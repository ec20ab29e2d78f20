import type { Gpu } from "./gpu/gpu.ts";
import { type BufferUse, read } from "./gpu/recorder.ts";
import type { Matrix, MatrixPart } from "./matrix.ts";

/**
 * A buffer of `count` 4-byte elements that one binding holds whole. Throws when the adapter's
 * bindings are smaller, with the size that a smaller capacity must reach.
 */
export function scratch(gpu: Gpu, label: string, count: number): GPUBuffer {
  const limit = gpu.limits.maxStorageBufferBindingSize;
  if (4 * count > limit) {
    throw new Error(
      `allocate "${label}" on "${gpu.description}": wanted at most ${limit} bytes a binding, ` +
        `found ${4 * count} bytes`,
    );
  }
  return gpu.buffer(label, 4 * count);
}

/** The buffer of a vector that has one to itself: a matrix of one row in one part. */
export function vectorBuffer(matrix: Matrix): GPUBuffer {
  return onlyPart(matrix).buffer;
}

/** A small matrix or vector of one part, as kernels read it. */
export function readWhole(matrix: Matrix): BufferUse {
  const { buffer, offset, bytes } = onlyPart(matrix);
  return read(buffer, offset, bytes);
}

/** The scales of a matrix for lib/scale_grid.wgsl; something unused where it has none. */
export function readScales({ scales }: Matrix): BufferUse {
  return read(scales.buffer, scales.offset);
}

/** The one part of a matrix that must not be split. */
export function onlyPart({ spec, parts }: Matrix): MatrixPart {
  const [part, ...others] = parts;
  if (part === undefined || others.length > 0) {
    throw new Error(`use weight "${spec.key}": wanted 1 part, found ${parts.length}`);
  }
  return part;
}
