/** decode_attention.wgsl alone against f64: every split's maximum, total and weighted sum. */
import assert from "node:assert";
import {
  compileDecodeAttention,
  DECODE_SPLITS,
  decodeAttention,
  decodeAttentionBytes,
  splitsUpTo,
} from "../../kernels/decode_attention.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { TUNINGS } from "../../kernels/gpu/tuning.ts";
import { type LatentFormat, latentQuads } from "../../kernels/latent_cache.ts";
import { valueQuads } from "../../kernels/mla_attention.ts";
import type { MlaShape } from "../../kernels/types.ts";
import { decodeF16, encodeF16 } from "../reference/formats.ts";
import { normals, randomSource } from "../reference/random.ts";
import { type Guarded, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertSameBits } from "./weights.ts";

interface Case {
  readonly shape: MlaShape;
  readonly format: LatentFormat;
  readonly pageTokens: number;
  /** Of the rows that attend, behind one that does not. */
  readonly positions: readonly number[];
  /** Deviation of the scores. */
  readonly spread: number;
}

interface Inputs {
  readonly quads: number;
  /** [1 + rows][heads][4 quads]. */
  readonly absorbed: Float32Array;
  /** Of each row, [position + 1][4 quads], as stored. */
  readonly entries: readonly Float32Array[];
  readonly rows: Uint32Array;
  readonly pages: Uint32Array;
  /** The cache; what no row owns is NaN. */
  readonly cache: Float32Array | Uint16Array;
}

const ROW_START = 1;

/** Rows with scrambled pages. */
function inputsOf({ shape, format, pageTokens, positions, spread }: Case, seed: number): Inputs {
  const random = randomSource(seed);
  const { headCount, latentDim, nopeDim, sharedKeyDim } = shape;
  const quads = latentQuads(shape);
  const width = latentDim + sharedKeyDim;
  const round = format === "f16" ? (x: number) => decodeF16(encodeF16(x)) : Math.fround;
  const absorbed = new Float32Array((ROW_START + positions.length) * headCount * 4 * quads);
  const deviation = spread * Math.sqrt((nopeDim + sharedKeyDim) / width);
  const padded = (values: Float32Array) => {
    for (let start = 0; start < values.length; start += 4 * quads) {
      values.fill(0, start + width, start + 4 * quads);
    }
    return values;
  };
  absorbed.set(padded(normals(random, absorbed.length, deviation)));
  absorbed.fill(NaN, 0, ROW_START * headCount * 4 * quads);
  const counts = positions.map((position) => Math.floor(position / pageTokens) + 1);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const free = Array.from({ length: total + 3 }, (_, page) => page);
  const pages = Uint32Array.from(
    { length: total },
    () => free.splice(Math.floor(random() * free.length), 1)[0]!,
  );
  const values = new Float32Array((total + 3) * pageTokens * 4 * quads).fill(NaN);
  const rows = new Uint32Array(4 * (ROW_START + positions.length));
  let first = 0;
  const entries = positions.map((position, index) => {
    const own = padded(normals(random, (position + 1) * 4 * quads).map(round));
    // Subnormal as f16, zeros.
    own.set([3e-6, -3e-6, 0, -0].map(round));
    for (let j = 0; j <= position; j++) {
      const page = pages[first + Math.floor(j / pageTokens)]!;
      const at = (page * pageTokens + j % pageTokens) * 4 * quads;
      values.set(own.subarray(j * 4 * quads, (j + 1) * 4 * quads), at);
    }
    rows.set([index, position, index, first], 4 * (ROW_START + index));
    first += counts[index]!;
    return own;
  });
  const cache = format === "f16" ? Uint16Array.from(values, encodeF16) : values;
  return { quads, absorbed, entries, rows, pages, cache };
}

interface Softmaxes {
  readonly sums: Float32Array;
  readonly maxima: Float32Array;
}

async function run(gpu: Gpu, test: Case, inputs: Inputs): Promise<Softmaxes> {
  const { shape, format, pageTokens, positions } = test;
  const lastPosition = Math.max(...positions);
  const splits = splitsOf(test);
  const pipeline = await compileDecodeAttention(gpu, shape, format, lastPosition + 1);
  const softmaxes = positions.length * splitsOf(test) * shape.headCount;
  const sums = guarded(gpu, softmaxes * 4 * valueQuads(shape));
  const maxima = guarded(gpu, softmaxes * 2);
  const out = ({ buffer, offset, bytes }: Guarded) => write(buffer, offset, bytes);
  const recorder = new Recorder(gpu);
  const buffers = {
    absorbed: read(upload(gpu, inputs.absorbed)),
    latents: read(upload(gpu, inputs.cache)),
    rows: read(upload(gpu, inputs.rows)),
    pages: read(upload(gpu, inputs.pages)),
    sums: out(sums),
    maxima: out(maxima),
  };
  const sizes = { rowStart: ROW_START, rowCount: positions.length, splits, pageTokens };
  decodeAttention(recorder, pipeline, buffers, shape, sizes);
  const found = await takeGuarded(gpu, sums, recorder);
  return { sums: found, maxima: await takeGuarded(gpu, maxima) };
}

/** As many as the results of each row have room for. */
function splitsOf({ positions }: Case): number {
  return splitsUpTo(Math.max(...positions));
}

/** Positions of a split, as lib/decode_splits.wgsl says. */
function splitTokens(position: number): number {
  return 32 * Math.ceil((Math.floor(position / 32) + 1) / DECODE_SPLITS);
}

/** Checks one head's softmax over positions [start, end) of a row. */
function checkSplit(
  test: Case,
  { quads, absorbed, entries }: Inputs,
  { sums, maxima }: Softmaxes,
  [row, split, head]: readonly [number, number, number],
  [start, end]: readonly [number, number],
): void {
  const { shape, spread } = test;
  const { headCount, nopeDim, sharedKeyDim } = shape;
  const width = 4 * quads;
  const at = ((ROW_START + row) * headCount + head) * width;
  const scores = Float64Array.from({ length: end - start }, (_, j) => {
    let sum = 0;
    for (let i = 0; i < width; i++) {
      sum += absorbed[at + i]! * entries[row]![(start + j) * width + i]!;
    }
    return sum / Math.sqrt(nopeDim + sharedKeyDim);
  });
  const place = (row * splitsOf(test) + split) * headCount + head;
  const [maximum, total] = [maxima[2 * place]!, maxima[2 * place + 1]!];
  const name = `row ${row}, split ${split}, head ${head}`;
  const largest = Math.max(...scores);
  assert.ok(Math.abs(maximum - largest) < 3e-6 * (1 + spread), `${name}: maximum ${maximum}`);
  const weights = scores.map((score) => Math.exp(score - maximum));
  const wantedTotal = weights.reduce((a, b) => a + b, 0);
  const tolerance = 1e-5 * (1 + spread);
  assert.ok(Math.abs(total - wantedTotal) < tolerance * wantedTotal, `${name}: total ${total}`);
  const valueWidth = 4 * valueQuads(shape);
  for (let i = 0; i < valueWidth; i++) {
    let wanted = 0;
    for (let j = 0; j < weights.length; j++) {
      wanted += weights[j]! * entries[row]![(start + j) * width + i]!;
    }
    const found = sums[place * valueWidth + i]!;
    const error = Math.abs(found - wanted);
    assert.ok(error < 3 * tolerance * wantedTotal, `${name}, ${i}: ${found}, wanted ${wanted}`);
  }
}

function check(test: Case, inputs: Inputs, found: Softmaxes): void {
  const { headCount } = test.shape;
  const valueWidth = 4 * valueQuads(test.shape);
  test.positions.forEach((position, row) => {
    const size = splitTokens(position);
    const used = Math.floor(position / size) + 1;
    for (let split = 0; split < used; split++) {
      const range = [split * size, Math.min((split + 1) * size, position + 1)] as const;
      for (let head = 0; head < headCount; head++) {
        checkSplit(test, inputs, found, [row, split, head], range);
      }
    }
    const [first, end] = [row * splitsOf(test) + used, (row + 1) * splitsOf(test)];
    const rest = found.sums.subarray(first * headCount * valueWidth, end * headCount * valueWidth);
    assert.ok(rest.every(Number.isNaN), `row ${row}: wrote splits behind its context`);
  });
}

/** [headCount, latentDim, sharedKeyDim], the other sizes fixed. */
function shapeOf([headCount, latentDim, sharedKeyDim]: readonly [number, number, number]) {
  return { headCount, latentDim, nopeDim: 24, sharedKeyDim, valueDim: 16 };
}

const MIXED = [0, 70, 31, 7, 32, 99];

const CASES: readonly [
  string,
  readonly [number, number, number],
  LatentFormat,
  readonly number[],
  Partial<Case>,
][] = [
  ["one head, one value", [1, 1, 1], "f32", [0, 5], {}],
  ["4 heads, rows of one split to four", [4, 72, 24], "f32", MIXED, {}],
  ["32 heads, full rows of quads", [32, 96, 32], "f16", MIXED, { pageTokens: 7 }],
  ["40 heads, part of a row of quads", [40, 131, 23], "f16", [70, 0], {}],
  ["40 heads, f32", [40, 64, 0], "f32", [33], {}],
  ["several rows of quads", [17, 320, 40], "f16", [50], {}],
  ["scores far apart", [4, 72, 24], "f32", [90, 0], { spread: 60 }],
  ["scores far apart, f16", [32, 72, 24], "f16", [40], { spread: 60 }],
  ["longer splits than 32", [3, 12, 5], "f16", [4_100, 10, 8_300], { pageTokens: 64, spread: 9 }],
];

for (const [index, [name, sizes, format, positions, options]] of CASES.entries()) {
  withGpu(`decode_attention agrees with f64: ${name}`, async (gpu) => {
    const shape = shapeOf(sizes);
    const test = { shape, format, positions, pageTokens: 16, spread: 2, ...options };
    const inputs = inputsOf(test, 700 + index);
    const found = await run(gpu, test, inputs);
    check(test, inputs, found);
    const second = await run(gpu, test, inputs);
    assertSameBits(second.maxima, found.maxima, "maxima of a second run");
    assertSameBits(second.sums, found.sums, "sums of a second run");
  });
}

for (const [bad, format] of [[NaN, "f16"], [-Infinity, "f16"], [NaN, "f32"]] as const) {
  withGpu(
    `decode_attention shows ${bad} in an ${format} entry, in its split alone`,
    async (gpu) => {
      const shape = shapeOf([5, 72, 24]);
      const test = { shape, format, positions: [70], pageTokens: 16, spread: 2 } as const;
      const inputs = inputsOf(test, 730);
      const [position, channel] = [45, 17];
      const at = (inputs.pages[position >> 4]! * 16 + position % 16) * 4 * inputs.quads + channel;
      inputs.cache[at] = format === "f16" ? encodeF16(bad) : bad;
      const found = await run(gpu, test, inputs);
      for (const split of [0, 1, 2]) {
        for (let head = 0; head < shape.headCount; head++) {
          const place = split * shape.headCount + head;
          const sum = found.sums[place * 4 * valueQuads(shape) + channel]!;
          assert.equal(Number.isFinite(sum), split !== 1, `split ${split}, head ${head}: ${sum}`);
        }
      }
    },
  );
}

Deno.test("decode_attention fits 48 KiB for the published shape, 32 KiB for a small one", () => {
  const bytes = (latentDim: number, sharedKeyDim: number) =>
    decodeAttentionBytes(shapeOf([32, latentDim, sharedKeyDim]), TUNINGS.discrete.attention);
  assert.ok(bytes(512, 64) <= 48 << 10, `${bytes(512, 64)}`);
  assert.ok(bytes(128, 64) <= 32 << 10, `${bytes(128, 64)}`);
});

withGpu("decode_attention works on the published shape where the adapter does", async (gpu) => {
  const shape = { headCount: 32, latentDim: 512, nopeDim: 128, sharedKeyDim: 64, valueDim: 128 };
  const test = { shape, format: "f16", positions: [40], pageTokens: 16, spread: 2 } as const;
  if (
    gpu.limits.maxComputeWorkgroupStorageSize <
      decodeAttentionBytes(shape, gpu.tuning.numbers.attention)
  ) {
    const message = /decode_attention.*workgroup memory/;
    await assert.rejects(async () => await compileDecodeAttention(gpu, shape, "f16", 41), message);
    return;
  }
  const inputs = inputsOf(test, 720);
  check(test, inputs, await run(gpu, test, inputs));
});
