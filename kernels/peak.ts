/** What an adapter reaches at most, measured by kernels that do nothing else. */
import { type Gpu, openGpu } from "./gpu/gpu.ts";
import { read, Recorder, write } from "./gpu/recorder.ts";
import { type DispatchTime, Timestamps } from "./gpu/timestamps.ts";
import { compilePeakDot, PEAK_DOT_THREADS, PEAK_DOT_TURN_OPERATIONS, peakDot } from "./peak_dot.ts";
import { compilePeakFma, PEAK_FMA_THREADS, PEAK_FMA_TURN_OPERATIONS, peakFma } from "./peak_fma.ts";
import { compilePeakRead, PEAK_READ_GROUP_BYTES, peakRead } from "./peak_read.ts";

/** Multiplications and additions count as one operation each. */
export interface Peak {
  readonly readBytesPerSecond: number;
  /** Of int8, by dot4I8Packed. */
  readonly integerOperationsPerSecond: number;
  /** Of f32. */
  readonly floatOperationsPerSecond: number;
}

/** Bytes that are read: far more than a cache of 50 MB, of which the next pass could find some. */
const READ_BYTES = 512 << 20;
const SOFTWARE_READ_BYTES = 32 << 20;
/** Bytes of random words that fill them. */
const BLOCK_BYTES = 4 << 20;
const READ_PASSES_MAX = 64;
/** Workgroups of arithmetic: several rounds of them on the largest GPU. */
const GROUPS = 8_192;
const SOFTWARE_GROUPS = 64;
const TURNS_MAX = 60_000;
/** Least time of a dispatch that counts: its beginning and end are small beside it. */
const DISPATCH_SECONDS = 0.002;
/** Factor by which a dispatch that was too short may grow at once: short times are not exact. */
const GROWTH_MAX = 16;
/** Dispatches of which the fastest counts. */
const RUNS = 10;

/** Of the adapter that the webgpu device takes, through a device of its own. */
export async function measureAdapterPeak(): Promise<Peak | null> {
  const gpu = await openGpu({ software: true });
  try {
    return await measurePeak(gpu);
  } finally {
    gpu.destroy();
  }
}

/** Some tenths of a second. null where the adapter has no timestamps. */
export async function measurePeak(gpu: Gpu): Promise<Peak | null> {
  if (!gpu.device.features.has("timestamp-query")) return null;
  const groups = gpu.software ? SOFTWARE_GROUPS : GROUPS;
  const [dot, fma] = [await compilePeakDot(gpu), await compilePeakFma(gpu)];
  const sums = gpu.buffer("peak sums", 4 * groups * Math.max(PEAK_DOT_THREADS, PEAK_FMA_THREADS));
  const floats = await mostPerSecond(gpu, TURNS_MAX, (recorder, turns) => {
    // Exact as long as a float holds the count.
    peakFma(recorder, fma, write(sums), groups, { turns, factor: 1, addend: 1 });
  });
  const integers = await mostPerSecond(gpu, TURNS_MAX, (recorder, turns) => {
    peakDot(recorder, dot, write(sums), groups, turns);
  });
  sums.destroy();
  return {
    readBytesPerSecond: await measureRead(gpu),
    integerOperationsPerSecond: integers * groups * PEAK_DOT_TURN_OPERATIONS,
    floatOperationsPerSecond: floats * groups * PEAK_FMA_TURN_OPERATIONS,
  };
}

async function measureRead(gpu: Gpu): Promise<number> {
  const wanted = Math.min(gpu.bufferBytesMax, gpu.software ? SOFTWARE_READ_BYTES : READ_BYTES);
  const groups = Math.floor(wanted / PEAK_READ_GROUP_BYTES);
  const data = gpu.buffer("peak data", groups * PEAK_READ_GROUP_BYTES);
  const sums = gpu.buffer("peak sums", 4 * groups * READ_PASSES_MAX);
  fillWithNoise(gpu, data);
  const pipeline = await compilePeakRead(gpu);
  const buffers = { data: read(data), sums: write(sums) };
  const passes = await mostPerSecond(gpu, READ_PASSES_MAX, (recorder, count) => {
    peakRead(recorder, pipeline, buffers, groups, count);
  });
  data.destroy();
  sums.destroy();
  return passes * groups * PEAK_READ_GROUP_BYTES;
}

/** Random words: an adapter may keep and move zeros faster than others. */
export function fillWithNoise(gpu: Gpu, buffer: GPUBuffer): void {
  const words = new Uint32Array(BLOCK_BYTES / 4);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = Math.imul(state, 1_664_525) + 1_013_904_223 | 0;
    words[i] = state ^ state >>> 15;
  }
  const block = gpu.buffer("noise", BLOCK_BYTES);
  gpu.write(block, 0, words);
  const encoder = gpu.device.createCommandEncoder();
  for (let at = 0; at < buffer.size; at += BLOCK_BYTES) {
    const bytes = Math.min(BLOCK_BYTES, buffer.size - at);
    encoder.copyBufferToBuffer(block, 0, buffer, at, bytes);
  }
  gpu.device.queue.submit([encoder.finish()]);
  gpu.release(block);
}

/**
 * Units a second of the fastest dispatch, where `record` records one of so many units: as many as
 * take DISPATCH_SECONDS, `most` at most.
 */
async function mostPerSecond(
  gpu: Gpu,
  most: number,
  record: (recorder: Recorder, units: number) => void,
): Promise<number> {
  const shortest = async (units: number, runs: number) => {
    const times = await timeDispatches(gpu, (recorder) => {
      for (let run = 0; run < runs; run++) record(recorder, units);
    });
    return Math.min(...times.map(({ nanoseconds }) => nanoseconds)) / 1e9;
  };
  let units = 1;
  for (;;) {
    const seconds = await shortest(units, 1);
    if (seconds >= DISPATCH_SECONDS || units === most) break;
    const growth = Math.min(GROWTH_MAX, Math.max(2, 1.1 * DISPATCH_SECONDS / seconds));
    units = Math.min(most, Math.ceil(units * growth));
  }
  return units / await shortest(units, RUNS);
}

/** Times of the dispatches that `record` records. */
export async function timeDispatches(
  gpu: Gpu,
  record: (recorder: Recorder) => void,
): Promise<DispatchTime[]> {
  const recorder = new Recorder(gpu);
  const timestamps = new Timestamps(gpu);
  recorder.timestamps = timestamps;
  try {
    record(recorder);
    recorder.submit();
    return await timestamps.take();
  } finally {
    timestamps.destroy();
  }
}
