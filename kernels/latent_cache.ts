/**
 * The paged cache of MLA latents: per layer one buffer [pages][pageTokens][quads], an entry being
 * the normalised latent, the shared key and zeros up to a multiple of 4 values.
 */
import type { Gpu } from "./gpu/gpu.ts";
import type { Prelude } from "./gpu/kernel.ts";
import type { Readback } from "./gpu/readback.ts";
import type { Recorder } from "./gpu/recorder.ts";
import latentF16 from "./lib/latent_f16.wgsl" with { type: "text" };
import latentF32 from "./lib/latent_f32.wgsl" with { type: "text" };
import type { Capacity, MlaShape } from "./types.ts";

export type LatentFormat = Capacity["latentFormat"];

const VALUE_BYTES: Readonly<Record<LatentFormat, number>> = { f16: 2, f32: 4 };

/**
 * The piece that defines `latent_quad`, `encode_latent` and `decode_latent`, and for kernels that
 * decode many quads `decode_plain_latent`, right where `rare_latent` is 0.
 */
export function latentPrelude(format: LatentFormat): Prelude {
  return {
    name: `lib/latent_${format}.wgsl`,
    source: { f16: latentF16, f32: latentF32 }[format],
  };
}

/** Groups of 4 values in one entry. */
export function latentQuads({ latentDim, sharedKeyDim }: MlaShape): number {
  return Math.ceil((latentDim + sharedKeyDim) / 4);
}

/** Bytes of one entry. */
export function latentEntryBytes(shape: MlaShape, format: LatentFormat): number {
  return 4 * VALUE_BYTES[format] * latentQuads(shape);
}

/** The cache of one layer. Throws, naming the pages that fit, when one binding cannot hold it. */
export function allocateLatents(gpu: Gpu, shape: MlaShape, capacity: Capacity): GPUBuffer {
  const { pages, pageTokens, latentFormat } = capacity;
  const pageBytes = pageTokens * latentEntryBytes(shape, latentFormat);
  const limit = gpu.bufferBytesMax;
  const fit = Math.floor(limit / pageBytes);
  if (pages > fit) {
    throw new Error(
      `allocate latents on "${gpu.description}": wanted at most ${fit} pages of ${pageTokens} ` +
        `tokens, which one binding of ${limit} bytes holds, found ${pages}`,
    );
  }
  return gpu.buffer("MLA latents", pages * pageBytes);
}

/**
 * Latents at positions [0, count) of a sequence with these pages: f32 [count][latentDim +
 * sharedKeyDim]. Reads page by page, for tests and snapshots.
 */
export async function readLatents(
  readback: Readback,
  recorder: Recorder,
  latents: GPUBuffer,
  shape: MlaShape,
  capacity: Capacity,
  pages: Uint32Array,
  count: number,
): Promise<Float32Array> {
  const { pageTokens, latentFormat } = capacity;
  const width = shape.latentDim + shape.sharedKeyDim;
  const entryValues = 4 * latentQuads(shape);
  const entryBytes = latentEntryBytes(shape, latentFormat);
  const result = new Float32Array(count * width);
  for (let position = 0; position < count; position += pageTokens) {
    const tokens = Math.min(pageTokens, count - position);
    const page = pages[position / pageTokens];
    if (page === undefined) throw new Error(`read latents: wanted ${count} tokens of pages`);
    const offset = page * pageTokens * entryBytes;
    const bytes = await readback.read(recorder, latents, offset, tokens * entryBytes);
    const values = latentFormat === "f16"
      ? Float32Array.from(new Float16Array(bytes))
      : new Float32Array(bytes);
    for (let token = 0; token < tokens; token++) {
      const entry = values.subarray(token * entryValues, token * entryValues + width);
      result.set(entry, (position + token) * width);
    }
  }
  return result;
}
