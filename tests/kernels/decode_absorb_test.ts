/** decode_absorb against f64: entries in their places of the cache, queries against entries. */
import assert from "node:assert";
import { compileDecodeAbsorb, decodeAbsorb } from "../../kernels/decode_absorb.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { latentEntryBytes, type LatentFormat, latentQuads } from "../../kernels/latent_cache.ts";
import type { MlaShape } from "../../kernels/types.ts";
import { decodeF16, encodeF16 } from "../reference/formats.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { mlaInputs } from "./mla_driver.ts";
import { assertClose } from "./weights.ts";

const SHAPES: readonly MlaShape[] = [
  { headCount: 1, latentDim: 1, nopeDim: 1, sharedKeyDim: 1, valueDim: 1 },
  { headCount: 3, latentDim: 96, nopeDim: 40, sharedKeyDim: 24, valueDim: 56 },
  { headCount: 5, latentDim: 91, nopeDim: 17, sharedKeyDim: 7, valueDim: 9 },
  { headCount: 2, latentDim: 512, nopeDim: 128, sharedKeyDim: 64, valueDim: 128 },
];
const [ROWS, PAGES, PAGE_TOKENS, EPSILON] = [3, 8, 5, 1e-6];
/** Position and first page of each row, and the pages. */
const PLACES = [[13, 0], [0, 3], [4, 4]] as const;
const PAGE_LIST = [7, 0, 2, 5, 3];

/** K^T qn | qp of each row and head, [rows][heads][4 quads of an entry]. */
function absorbedOf(
  shape: MlaShape,
  queries: Float32Array,
  kvBValues: Float64Array,
): Float64Array {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape;
  const entryWidth = 4 * latentQuads(shape);
  const wanted = new Float64Array(ROWS * headCount * entryWidth);
  for (let index = 0; index < ROWS * headCount; index++) {
    const query = queries.subarray(index * (nopeDim + sharedKeyDim));
    for (let c = 0; c < latentDim; c++) {
      for (let j = 0; j < nopeDim; j++) {
        const row = index % headCount * (nopeDim + valueDim) + j;
        wanted[index * entryWidth + c]! += kvBValues[row * latentDim + c]! * query[j]!;
      }
    }
    for (let c = 0; c < sharedKeyDim; c++) {
      wanted[index * entryWidth + latentDim + c] = query[nopeDim + c]!;
    }
  }
  return wanted;
}

/** An entry against its row: the latent within rounding, the shared key exactly, then zeros. */
function checkEntry(
  shape: MlaShape,
  format: LatentFormat,
  entry: Float64Array,
  row: Float32Array,
  norm: Float32Array,
): void {
  // Half a step of the format, and f32's own error.
  const [relative, absolute] = format === "f16" ? [2 ** -11 + 1e-6, 3.1e-8] : [1e-6, 0];
  for (const [c, value] of rmsNorm(row.slice(0, shape.latentDim), norm, EPSILON).entries()) {
    const allowed = relative * Math.abs(value) + absolute;
    assert.ok(Math.abs(entry[c]! - value) <= allowed, `latent ${entry[c]}, ${value}`);
  }
  for (let c = shape.latentDim; c < entry.length; c++) {
    const value = row[c] ?? 0;
    assert.equal(entry[c], format === "f16" ? decodeF16(encodeF16(value)) : value);
  }
}

for (
  const [latentFormat, kvFormat] of [["f16", "bf16"], ["f32", "f32"], ["f16", "f16"], [
    "f32",
    "fp8",
  ]] as const
) {
  withGpu(`decode_absorb agrees with f64, ${latentFormat} latents, ${kvFormat}`, async (gpu) => {
    for (const shape of SHAPES) {
      const { headCount, latentDim, sharedKeyDim } = shape;
      const random = randomSource(83);
      const rest = { latentFormat, pageTokens: PAGE_TOKENS, splitTokens: 16, batchRows: ROWS };
      const segments = PLACES.map(([past], slot) => {
        return { slot, past, rowCount: 1, pages: Uint32Array.from(PAGE_LIST) };
      });
      const { kvB, kvBValues, queries } = mlaInputs(
        gpu,
        random,
        { ...rest, shape, segments },
        kvFormat,
      );
      const [width, entryWidth] = [latentDim + sharedKeyDim, 4 * latentQuads(shape)];
      const compressed = normals(random, ROWS * width);
      const queryWidth = queries.length / ROWS;
      const projected = Float32Array.from({ length: ROWS * (queryWidth + width) }, (_, i) => {
        const [row, c] = [Math.floor(i / (queryWidth + width)), i % (queryWidth + width)];
        return c < queryWidth
          ? queries[row * queryWidth + c]!
          : compressed[row * width + c - queryWidth]!;
      });
      const norm = normals(random, latentDim);
      const cacheBytes = PAGES * PAGE_TOKENS * latentEntryBytes(shape, latentFormat);
      const before = new Uint8Array(cacheBytes).map((_, i) => i * 37 + 11);
      const cache = upload(gpu, before);
      const absorbed = guarded(gpu, ROWS * headCount * entryWidth);
      const places = PLACES.flatMap(([position, page], row) => [row, position, row, page]);
      const recorder = new Recorder(gpu);
      decodeAbsorb(
        recorder,
        await compileDecodeAbsorb(gpu, kvFormat, latentFormat, shape),
        kvB,
        {
          projected: read(upload(gpu, projected)),
          norm: read(upload(gpu, norm)),
          rows: read(upload(gpu, Uint32Array.from(places))),
          pages: read(upload(gpu, Uint32Array.from(PAGE_LIST))),
          absorbed: write(absorbed.buffer, absorbed.offset, absorbed.bytes),
          latents: write(cache),
        },
        shape,
        { rowCount: ROWS, pageTokens: PAGE_TOKENS, epsilon: EPSILON },
      );
      const wanted = absorbedOf(shape, queries, kvBValues);
      const found = await takeGuarded(gpu, absorbed, recorder);
      assertClose(found, wanted, entryWidth, `absorbed, latent of ${latentDim}`);
      const bytes = new Uint8Array((await download(gpu, cache, cacheBytes / 4)).buffer);
      const entryBytes = latentEntryBytes(shape, latentFormat);
      const expected = before.slice();
      PLACES.forEach(([position, page], row) => {
        const slot = PAGE_LIST[page + Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS;
        const at = (slot + position % PAGE_TOKENS) * entryBytes;
        const entry = bytes.slice(at, at + entryBytes);
        expected.set(entry, at);
        const values = latentFormat === "f16"
          ? Float64Array.from(new Uint16Array(entry.buffer), decodeF16)
          : Float64Array.from(new Float32Array(entry.buffer));
        const own = compressed.subarray(row * width, (row + 1) * width);
        checkEntry(shape, latentFormat, values, own, norm);
      });
      assert.deepStrictEqual(bytes, expected);
    }
  });
}
