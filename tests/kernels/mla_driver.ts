/** Runs MLA's kernels between the projections over one step. */
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { latentEntryBytes, type LatentFormat, latentQuads } from "../../kernels/latent_cache.ts";
import { isGrouped, Matrix } from "../../kernels/matrix.ts";
import { compileMlaAbsorb, mlaAbsorb } from "../../kernels/mla_absorb.ts";
import { compileMlaAttention, mlaAttention, valueQuads } from "../../kernels/mla_attention.ts";
import { MlaExpanded } from "../../kernels/mla_expanded.ts";
import { compileMlaMerge, contextQuads, mlaMerge } from "../../kernels/mla_merge.ts";
import { compileMlaValue, mlaValue } from "../../kernels/mla_value.ts";
import { StepBuffers } from "../../kernels/step_buffers.ts";
import type { MlaShape, WeightFormat } from "../../kernels/types.ts";
import {
  decodeF16,
  dequantize,
  dequantizeGroups,
  encodeF16,
  type GroupedMatrix,
  quantize,
  quantizeGroups,
  type StoredMatrix,
} from "../reference/formats.ts";
import { mlaAttention as expandedAttention } from "../reference/mla.ts";
import { normals } from "../reference/random.ts";
import { type Guarded, guarded, takeGuarded, upload } from "./harness.ts";
import { planOf, reordered, type Segment } from "./plans.ts";

/** Sequences with their pages, queries, and the cache that holds all of their entries. */
export interface MlaCase {
  readonly shape: MlaShape;
  readonly latentFormat: LatentFormat;
  readonly pageTokens: number;
  readonly splitTokens: number;
  /** Rows that go through attention together. */
  readonly batchRows: number;
  readonly segments: readonly (Segment & { readonly pages: Uint32Array })[];
}

export interface MlaInputs {
  /** [rows][heads][nope + shared]. */
  readonly queries: Float32Array;
  /** Of each sequence, [past + rows][latent + shared]: as stored, rounded to the format. */
  readonly latents: readonly Float32Array[];
  readonly kvB: Matrix;
  readonly kvBValues: Float64Array;
}

/** A segment with scrambled pages out of the whole cache; `free` are the pages left. */
export function segmentOf(
  random: () => number,
  free: number[],
  slot: number,
  past: number,
  rowCount: number,
  pageTokens: number,
): Segment & { readonly pages: Uint32Array } {
  const pages = Uint32Array.from(
    { length: Math.ceil((past + rowCount) / pageTokens) },
    () => free.splice(Math.floor(random() * free.length), 1)[0]!,
  );
  return { slot, rowCount, past, pages };
}

export function mlaInputs(
  gpu: Gpu,
  random: () => number,
  { shape, segments, latentFormat }: MlaCase,
  format: WeightFormat,
  bindingLimitBytes?: number,
): MlaInputs {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape;
  const rows = headCount * (nopeDim + valueDim);
  const scale = format === "fp8" ? { rowsPerScale: 24, columnsPerScale: 10 } : null;
  const key = "random.kv_b";
  const spec = { key, format, matrices: 1, rows, columns: latentDim, scale };
  const grid = scale && {
    ...scale,
    values: Float32Array.from(
      { length: Math.ceil(rows / 24) * Math.ceil(latentDim / 10) },
      () => 0.02 + 0.02 * random(),
    ),
  };
  const weights = normals(random, rows * latentDim, latentDim ** -0.5);
  const kvB = Matrix.allocate(gpu, spec, bindingLimitBytes);
  const kvBValues = isGrouped(format)
    ? writeGroups(kvB, quantizeGroups(weights, rows, latentDim, format))
    : writeFloats(kvB, quantize(weights, rows, latentDim, format, grid));
  const rowCount = segments.reduce((sum, segment) => sum + segment.rowCount, 0);
  const round = latentFormat === "f16" ? (x: number) => decodeF16(encodeF16(x)) : Math.fround;
  return {
    queries: normals(random, rowCount * headCount * (nopeDim + sharedKeyDim)),
    latents: segments.map(({ past = 0, rowCount }) => {
      const count = (past + rowCount) * (latentDim + sharedKeyDim);
      const values = normals(random, count);
      for (const [i, salt] of [0, -0, 3e-6, -3e-6, 12].entries()) values[i * 31 % count] = salt;
      return values.map(round);
    }),
    kvB,
    kvBValues,
  };
}

/** Both return the matrix's values. */
function writeFloats(matrix: Matrix, stored: StoredMatrix): Float64Array {
  matrix.write(0, 0, stored.bytes);
  if (stored.scale !== null) matrix.writeScales(0, Float32Array.from(stored.scale.values));
  return dequantize(stored);
}

function writeGroups(matrix: Matrix, stored: GroupedMatrix): Float64Array {
  matrix.write(0, 0, stored.bytes);
  matrix.writeGroupScales(0, 0, new Uint8Array(stored.scales.buffer));
  return dequantizeGroups(stored);
}

/** The cache's bytes; what no sequence owns is NaN, which must not be read. */
function cacheOf(test: MlaCase, inputs: MlaInputs): Uint8Array {
  const { shape, latentFormat, pageTokens, segments } = test;
  const pages = 1 + Math.max(...segments.flatMap((segment) => [...segment.pages]));
  const entry = 4 * latentQuads(shape);
  const width = shape.latentDim + shape.sharedKeyDim;
  const values = new Float32Array(pages * pageTokens * entry).fill(NaN);
  segments.forEach((segment, index) => {
    const latents = inputs.latents[index]!;
    for (let position = 0; position * width < latents.length; position++) {
      const page = segment.pages[Math.floor(position / pageTokens)]!;
      const at = (page * pageTokens + position % pageTokens) * entry;
      values.fill(0, at, at + entry);
      values.set(latents.subarray(position * width, (position + 1) * width), at);
    }
  });
  if (latentFormat === "f32") return new Uint8Array(values.buffer);
  const halves = Uint16Array.from(values, encodeF16);
  if (halves.byteLength !== pages * pageTokens * latentEntryBytes(shape, "f16")) throw new Error();
  return new Uint8Array(halves.buffer);
}

/** Attention outputs of all rows, [rows][heads][valueDim]. */
export async function runMla(gpu: Gpu, test: MlaCase, inputs: MlaInputs): Promise<Float32Array> {
  const { shape, pageTokens, splitTokens, latentFormat } = test;
  const { headCount, valueDim } = shape;
  const plan = planOf(test.segments);
  const rowCount = plan.tokens.length;
  const step = StepBuffers.create(gpu, {
    slots: 64,
    pages: 1 << 20,
    pageTokens,
    rows: rowCount,
    logitRows: 1,
    logitEdits: 1,
    sequences: test.segments.length,
    pagesPerSequence: Math.max(...test.segments.map(({ pages }) => pages.length)),
    latentFormat,
  });
  step.upload(plan);
  const splits = Math.ceil((step.lastPosition + 1) / splitTokens);
  const heads = test.batchRows * splits * headCount;
  const absorbed = guarded(gpu, rowCount * headCount * 4 * latentQuads(shape));
  const sums = guarded(gpu, heads * 4 * valueQuads(shape));
  const maxima = guarded(gpu, heads * 2);
  const context = guarded(gpu, rowCount * headCount * 4 * contextQuads(shape));
  const o = guarded(gpu, rowCount * headCount * valueDim);
  const out = ({ buffer, offset, bytes }: Guarded) => write(buffer, offset, bytes);
  const into = ({ buffer, offset, bytes }: Guarded) => read(buffer, offset, bytes);
  const recorder = new Recorder(gpu);
  const { kvB } = inputs;
  const { format } = kvB.spec;
  // The step's own order of the rows, and back.
  const queries = read(upload(gpu, reordered(inputs.queries, step.internalRows, false)));
  const all = { start: 0, count: rowCount };
  const absorb = await compileMlaAbsorb(gpu, format);
  mlaAbsorb(recorder, absorb, kvB, queries, out(absorbed), shape, all);
  const attend = await compileMlaAttention(gpu, shape, latentFormat, splitTokens);
  const merge = await compileMlaMerge(gpu);
  const latents = read(upload(gpu, cacheOf(test, inputs)));
  const { rows, pages } = step;
  for (let rowStart = 0; rowStart < rowCount; rowStart += test.batchRows) {
    const count = Math.min(test.batchRows, rowCount - rowStart);
    const batch = { firstRow: 0, rowStart, rowCount: count, pageTokens, splitTokens, splits };
    const split = { sums: out(sums), maxima: out(maxima) };
    const from = { absorbed: into(absorbed), latents, rows, pages };
    mlaAttention(recorder, attend, { ...from, ...split }, shape, batch);
    const joined = { rows, sums: into(sums), maxima: into(maxima), context: out(context) };
    mlaMerge(recorder, merge, joined, shape, batch);
  }
  const value = await compileMlaValue(gpu, format);
  mlaValue(recorder, value, kvB, into(context), out(o), shape, all);
  const found = await takeGuarded(gpu, o, recorder);
  for (const output of [absorbed, sums, maxima, context]) await takeGuarded(gpu, output);
  return reordered(found, step.internalRows, true);
}

/**
 * The same through mla_gather, the product with kv_b and mla_prefill, each sequence in pieces of
 * `pieceRows` rows and the context in blocks of `blockTokens`.
 */
export async function runExpanded(
  gpu: Gpu,
  test: MlaCase,
  inputs: MlaInputs,
  blockTokens: number,
  pieceRows: number,
): Promise<Float32Array> {
  const { shape, pageTokens, latentFormat, segments } = test;
  const { headCount, valueDim } = shape;
  const plan = planOf(segments);
  const rowCount = plan.tokens.length;
  const capacity = {
    slots: 64,
    pages: 1 << 20,
    pageTokens,
    rows: rowCount,
    logitRows: 1,
    logitEdits: 1,
    sequences: segments.length,
    pagesPerSequence: Math.max(...segments.map(({ pages }) => pages.length)),
    latentFormat,
  };
  const step = StepBuffers.create(gpu, capacity);
  step.upload(plan);
  const { kvB } = inputs;
  const expanded = await MlaExpanded.create(gpu, shape, capacity, [kvB.spec.format], blockTokens);
  const o = gpu.buffer("test output", 4 * rowCount * headCount * valueDim);
  const recorder = new Recorder(gpu);
  const queries = upload(gpu, inputs.queries);
  const latents = upload(gpu, cacheOf(test, inputs));
  for (const { rowStart, rowCount: rows, past, pageStart } of step.sequences) {
    for (let first = 0; first < rows; first += pieceRows) {
      expanded.encode(recorder, kvB, queries, latents, step.pages, o, {
        rowStart: rowStart + first,
        rowCount: Math.min(pieceRows, rows - first),
        past: past + first,
        pageStart,
      });
    }
  }
  const output = guarded(gpu, rowCount * headCount * valueDim);
  recorder.copy(o, 0, output.buffer, output.offset, output.bytes);
  return await takeGuarded(gpu, output, recorder);
}

/** The same in f64 and in the expanded form. */
export function referenceMla(test: MlaCase, inputs: MlaInputs): Float64Array {
  const { shape, segments } = test;
  const { headCount, nopeDim, sharedKeyDim, valueDim } = shape;
  const rows = segments.reduce((sum, segment) => sum + segment.rowCount, 0);
  const o = new Float64Array(rows * headCount * valueDim);
  const queryWidth = headCount * (nopeDim + sharedKeyDim);
  let row = 0;
  segments.forEach(({ rowCount }, index) => {
    const queries = inputs.queries.subarray(row * queryWidth, (row + rowCount) * queryWidth);
    const sizes = { ...shape, heads: headCount };
    const latents = Float64Array.from(inputs.latents[index]!);
    const found = expandedAttention(sizes, queries, latents, inputs.kvBValues);
    o.set(found, row * headCount * valueDim);
    row += rowCount;
  });
  return o;
}
