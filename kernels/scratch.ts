import type { Gpu } from "./gpu/gpu.ts";
import type { Matrix } from "./matrix.ts";

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

/** The buffer of a vector, which is a matrix of one row in one part. */
export function vectorBuffer({ spec, parts }: Matrix): GPUBuffer {
  const [part, ...others] = parts;
  if (part === undefined || others.length > 0) {
    throw new Error(`use vector "${spec.key}": wanted 1 part, found ${parts.length}`);
  }
  return part.buffer;
}
