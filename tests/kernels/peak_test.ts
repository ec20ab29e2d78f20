/** The kernels that measure an adapter do all of the work that is counted: results are exact. */
import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { fillWithNoise, measurePeak } from "../../kernels/peak.ts";
import {
  compilePeakDot,
  PEAK_DOT_ADDEND,
  PEAK_DOT_FACTOR,
  PEAK_DOT_THREADS,
  peakDot,
} from "../../kernels/peak_dot.ts";
import { compilePeakFma, PEAK_FMA_THREADS, peakFma } from "../../kernels/peak_fma.ts";
import { compilePeakRead, PEAK_READ_GROUP_BYTES, peakRead } from "../../kernels/peak_read.ts";
import { download, guarded, takeGuarded, withGpu } from "./harness.ts";

/** Words of a guarded output as integers. */
async function words(
  gpu: Gpu,
  output: ReturnType<typeof guarded>,
  recorder: Recorder,
): Promise<Uint32Array> {
  return new Uint32Array((await takeGuarded(gpu, output, recorder)).buffer, output.offset);
}

withGpu("peak_read sums every word of every group in every pass", async (gpu) => {
  const [groups, passes] = [5, 3];
  const groupWords = PEAK_READ_GROUP_BYTES / 4;
  const data = gpu.buffer("data", groups * PEAK_READ_GROUP_BYTES);
  fillWithNoise(gpu, data);
  const held = new Uint32Array((await download(gpu, data, groups * groupWords)).buffer);
  assert.ok(new Set(held).size > 0.99 * held.length, "wanted noise");
  const output = guarded(gpu, passes * groups);
  const sums = write(output.buffer, output.offset, output.bytes);
  const recorder = new Recorder(gpu);
  peakRead(recorder, await compilePeakRead(gpu), { data: read(data), sums }, groups, passes);
  const found = (await words(gpu, output, recorder)).subarray(0, passes * groups);
  const wanted = Array.from({ length: passes * groups }, (_, index) => {
    const first = index % groups * groupWords;
    return held.subarray(first, first + groupWords).reduce((sum, word) => (sum + word) >>> 0, 0);
  });
  assert.deepEqual([...found], wanted);
});

/** The sum of the signed products of two words' bytes. */
function dot(a: number, b: number): number {
  let sum = 0;
  for (let shift = 0; shift < 32; shift += 8) {
    sum += (a << 24 - shift >> 24) * (b << 24 - shift >> 24);
  }
  return sum;
}

withGpu("peak_dot computes all chains of all turns", async (gpu) => {
  const [groups, turns] = [3, 4];
  const count = groups * PEAK_DOT_THREADS;
  const output = guarded(gpu, count);
  const recorder = new Recorder(gpu);
  const sums = write(output.buffer, output.offset, output.bytes);
  peakDot(recorder, await compilePeakDot(gpu), sums, groups, turns);
  const found = (await words(gpu, output, recorder)).subarray(0, count);
  for (const thread of [0, 1, 255, 256, count - 1]) {
    let sum = 0;
    for (let chain = 0; chain < 16; chain++) {
      let value = 16 * thread + chain;
      for (let step = 0; step < 8 * turns; step++) {
        value = (dot(value, PEAK_DOT_FACTOR) + PEAK_DOT_ADDEND) >>> 0;
      }
      sum = (sum + value) >>> 0;
    }
    assert.equal(found[thread], sum, `thread ${thread}`);
  }
  assert.throws(() => peakDot(recorder, null!, sums, 1, 70_000), /loop turns/);
});

withGpu("peak_fma computes all chains of all turns", async (gpu) => {
  const groups = 2;
  const pipeline = await compilePeakFma(gpu);
  // All exact: counting, turning the sign an even number of times, halving 40 times.
  for (
    const [turns, factor, addend, end] of [
      [25, 1, 1, (start: number) => start + 200],
      [25, -1, 3, (start: number) => start],
      [5, 0.5, 0, (start: number) => start / 2 ** 40],
    ] as const
  ) {
    const output = guarded(gpu, groups * PEAK_FMA_THREADS);
    const recorder = new Recorder(gpu);
    const sums = write(output.buffer, output.offset, output.bytes);
    peakFma(recorder, pipeline, sums, groups, { turns, factor, addend });
    let wanted = 0;
    for (let chain = 0; chain < 16; chain++) wanted += end(chain);
    const found = await takeGuarded(gpu, output, recorder);
    assert.deepEqual(found, new Float32Array(groups * PEAK_FMA_THREADS).fill(wanted), `${factor}`);
  }
});

withGpu("measurePeak() gives finite rates of an adapter with timestamps", async (gpu) => {
  const peak = await measurePeak(gpu);
  if (peak === null) return assert.ok(!gpu.device.features.has("timestamp-query"));
  for (const rate of Object.values(peak)) assert.ok(rate > 1e8 && rate < 1e16, `${rate}`);
});
