/** The short convolution over ragged steps, against f64 and against itself. */
import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { compileShortConv, shortConv } from "../../kernels/short_conv.ts";
import { StepBuffers } from "../../kernels/step_buffers.ts";
import { normalizedError, worstError } from "../reference/compare.ts";
import { normals, randomSource } from "../reference/random.ts";
import { shortConvolution } from "../reference/short_conv.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { planOf, reordered, type Segment, stepCapacity } from "./plans.ts";

interface Case {
  readonly keyChannels: number;
  readonly valueChannels: number;
  readonly taps: number;
  readonly segments: readonly Segment[];
}

interface Inputs {
  readonly u: Float32Array;
  /** q | k | v, [channels][taps]. */
  readonly taps: Float32Array;
  readonly tails: Float32Array;
}

const SLOTS = 6;

function inputsOf(test: Case, seed: number): Inputs {
  const random = randomSource(seed);
  const channels = 2 * test.keyChannels + test.valueChannels;
  const rows = test.segments.reduce((sum, { rowCount }) => sum + rowCount, 0);
  const u = normals(random, rows * channels);
  for (const [i, salt] of [0, -0, 1e-41, -1e-41, 1e4, -1e4].entries()) u[(i * 7) % u.length] = salt;
  return {
    u,
    taps: normals(random, channels * test.taps, 0.5),
    // Never empty: a buffer of no words can't be filled or read.
    tails: normals(random, Math.max(1, SLOTS * (test.taps - 1) * channels)),
  };
}

async function run(gpu: Gpu, test: Case, inputs: Inputs) {
  const { keyChannels, valueChannels, taps, segments } = test;
  const channels = 2 * keyChannels + valueChannels;
  const tapStride = taps + 3;
  const padded = (from: number, count: number) => {
    const part = new Float32Array(count * tapStride).fill(NaN);
    for (let c = 0; c < count; c++) {
      part.set(inputs.taps.subarray((from + c) * taps, (from + c + 1) * taps), c * tapStride);
    }
    return read(upload(gpu, part));
  };
  const plan = planOf(segments);
  const step = StepBuffers.create(gpu, stepCapacity([plan], SLOTS));
  step.upload(plan);
  const y = guarded(gpu, inputs.u.length);
  const tails = upload(gpu, inputs.tails);
  const recorder = new Recorder(gpu);
  shortConv(
    recorder,
    await compileShortConv(gpu, taps),
    {
      // The step's own order of the rows, and back.
      u: read(upload(gpu, reordered(inputs.u, step.internalRows, false))),
      qTaps: padded(0, keyChannels),
      kTaps: padded(keyChannels, keyChannels),
      vTaps: padded(2 * keyChannels, valueChannels),
      chunks: step.chunks,
      tails: write(tails),
      y: write(y.buffer, y.offset, y.bytes),
    },
    { keyChannels, channels, taps, tapStride },
    step.chunkCount + step.decodeCount,
  );
  return {
    y: reordered(await takeGuarded(gpu, y, recorder), step.internalRows, true),
    tails: await download(gpu, tails, inputs.tails.length),
  };
}

const CASES: readonly Case[] = [
  { keyChannels: 1, valueChannels: 1, taps: 4, segments: [{ slot: 0, rowCount: 1 }] },
  { keyChannels: 72, valueChannels: 120, taps: 4, segments: [{ slot: 3, rowCount: 331 }] },
  {
    keyChannels: 40,
    valueChannels: 24,
    taps: 3,
    segments: [
      { slot: 4, rowCount: 1 },
      { slot: 0, rowCount: 2 },
      { slot: 5, rowCount: 17 },
      { slot: 1, rowCount: 1 },
      { slot: 2, rowCount: 16 },
    ],
  },
  {
    keyChannels: 9,
    valueChannels: 70,
    taps: 17,
    segments: [{ slot: 1, rowCount: 5 }, { slot: 2, rowCount: 40 }, { slot: 0, rowCount: 1 }],
  },
  { keyChannels: 5, valueChannels: 6, taps: 1, segments: [{ slot: 1, rowCount: 19 }] },
];

for (const [index, test] of CASES.entries()) {
  withGpu(`shortConv() agrees with f64, case ${index}`, async (gpu) => {
    const inputs = inputsOf(test, 100 + index);
    const channels = 2 * test.keyChannels + test.valueChannels;
    const tailLength = (test.taps - 1) * channels;
    const found = await run(gpu, test, inputs);
    const tails = inputs.tails.slice();
    let row = 0;
    for (const { slot, rowCount } of test.segments) {
      const wanted = shortConvolution(
        inputs.u.subarray(row * channels, (row + rowCount) * channels),
        inputs.taps,
        inputs.tails.subarray(slot * tailLength, (slot + 1) * tailLength),
        channels,
      );
      const y = found.y.subarray(row * channels, (row + rowCount) * channels);
      assert.ok(normalizedError(y, wanted.y) <= 1e-10);
      assert.ok(worstError(y, wanted.y) <= 1e-5);
      tails.set(Float32Array.from(wanted.tail), slot * tailLength);
      row += rowCount;
    }
    // Tails are copies: bitwise, those of other slots included.
    assert.deepStrictEqual(found.tails, tails);
    assert.deepStrictEqual(await run(gpu, test, inputs), found);
  });
}

withGpu("shortConv() gives the values of the worked example", async (gpu) => {
  const channels = 3;
  const u = Float32Array.from({ length: 5 * channels }, (_, i) => 1 + Math.floor(i / channels));
  const taps = Float32Array.from({ length: 4 * channels }, (_, i) => 0.1 * (1 + i % 4));
  const tails = new Float32Array(SLOTS * 3 * channels);
  const test = { keyChannels: 1, valueChannels: 1, taps: 4, segments: [{ slot: 2, rowCount: 5 }] };
  const { y } = await run(gpu, test, { u, taps, tails });
  const wanted = [0.2394750640, 0.8252861162, 1.7615941560, 2.8577223805, 3.9280551602];
  for (const [i, value] of y.entries()) {
    assert.ok(Math.abs(value - wanted[Math.floor(i / channels)]!) < 1e-6, `${i}: ${value}`);
  }
});

withGpu(
  "shortConv() gives a sequence the same bits whole, in pieces and among others",
  async (gpu) => {
    const base = { keyChannels: 33, valueChannels: 20, taps: 4 };
    const channels = 86;
    const alone = { ...base, segments: [{ slot: 2, rowCount: 50 }] };
    const inputs = inputsOf(alone, 7);
    const whole = await run(gpu, alone, inputs);
    const others = normals(randomSource(8), 20 * channels);
    const mixed = new Float32Array(70 * channels);
    mixed.set(others);
    mixed.set(inputs.u, 20 * channels);
    const segments = [{ slot: 0, rowCount: 20 }, { slot: 2, rowCount: 50 }];
    const among = await run(gpu, { ...base, segments }, { ...inputs, u: mixed });
    assert.deepStrictEqual(among.y.slice(20 * channels), whole.y);
    const y = new Float32Array(whole.y.length);
    let tails = inputs.tails;
    for (let row = 0, count = 1; row < 50; row += count, count++) {
      const rowCount = Math.min(count, 50 - row);
      const u = inputs.u.slice(row * channels, (row + rowCount) * channels);
      const piece = await run(gpu, { ...base, segments: [{ slot: 2, rowCount }] }, {
        ...inputs,
        u,
        tails,
      });
      y.set(piece.y, row * channels);
      tails = piece.tails;
    }
    assert.deepStrictEqual(y, whole.y);
    assert.deepStrictEqual(tails, whole.tails);
  },
);

withGpu("compileShortConv() refuses more taps than a chunk reaches", (gpu) => {
  assert.throws(() => compileShortConv(gpu, 18), /wanted 1 to 17 taps, found 18/);
  return Promise.resolve();
});
