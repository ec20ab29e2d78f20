/** The class of an adapter, by what it is and how fast it reads memory; and its kernels' shapes. */
import { decodeWorkgroups, fitsWorkgroups } from "./decode_workgroups.ts";
import { type Gpu, openGpu } from "./gpu/gpu.ts";
import { read, Recorder, write } from "./gpu/recorder.ts";
import { type AdapterClass, checkTuning, type Tuning, TUNINGS } from "./gpu/tuning.ts";
import { fillWithNoise, timeDispatches } from "./peak.ts";
import { compilePeakRead, PEAK_READ_GROUP_BYTES, peakRead } from "./peak_read.ts";
import type { ModelShape } from "./types.ts";

/**
 * Reads of memory from which on an adapter has some of its own: what integrated ones share with the
 * CPU gives 50 to 130 GB/s. The few that reach more, and the few cards that do not, are in the
 * class that their memory is like.
 */
export const DISCRETE_READ_BYTES_PER_SECOND = 200e9;
/** More than the caches of integrated adapters hold. */
const READ_BYTES = 64 << 20;
/** Passes over it of the first dispatch, and at most: 1.3 ms and 21 ms at the border's speed. */
const PASSES = 4;
const PASSES_MAX = 64;
/** A dispatch that takes longer and is slower than the border shows that the adapter is. */
const SURE_SECONDS = 0.008;

/** What an operator says in place of the measurement, in part or whole. */
export interface TuningChoice {
  readonly adapterClass?: AdapterClass | undefined;
  readonly changes: TuningChanges;
}

/** Numbers in place of the class's own. */
export type TuningChanges = {
  readonly [Group in keyof Tuning]?:
    | { readonly [Name in keyof Tuning[Group]]?: Tuning[Group][Name] | undefined }
    | undefined;
};

/**
 * Opens the adapter, software ones too, with the shapes of its kernels for a model. Throws an Error
 * that says what is missing, or wrong in the choice.
 */
export async function openTuned(
  shape: ModelShape,
  choice: TuningChoice = { changes: {} },
): Promise<Gpu> {
  const gpu = await openGpu({ software: true });
  try {
    await tune(gpu, shape, choice);
    return gpu;
  } catch (error) {
    gpu.destroy();
    throw error;
  }
}

/**
 * Sets the device's tuning, before kernels are compiled. Throws an Error for numbers that kernels
 * or the adapter can't have.
 */
export async function tune(
  gpu: Gpu,
  shape: ModelShape,
  { adapterClass, changes }: TuningChoice,
): Promise<void> {
  const chosen = adapterClass ?? await adapterClassOf(gpu, shape);
  const numbers = changed(TUNINGS[chosen], changes);
  // Those of a class that the adapter is too small for leave the model to the generic kernels.
  if (Object.keys(changes).length > 0) check(gpu, shape, numbers);
  gpu.tune({ adapterClass: chosen, numbers });
}

function check(gpu: Gpu, shape: ModelShape, numbers: Tuning): void {
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = gpu.limits;
  checkTuning(numbers, maxComputeInvocationsPerWorkgroup);
  const { bytes } = decodeWorkgroups(numbers, shape);
  if (bytes > maxComputeWorkgroupStorageSize) {
    throw new Error(
      `use tuning: wanted at most ${maxComputeWorkgroupStorageSize} bytes of memory a workgroup, ` +
        `found numbers that take ${bytes}`,
    );
  }
}

function changed(base: Tuning, changes: TuningChanges): Tuning {
  const entries = Object.entries(base).map(([group, numbers]) => {
    const own = Object.entries(changes[group as keyof Tuning] ?? {});
    const given = own.filter(([, value]) => value !== undefined);
    return [group, { ...numbers, ...Object.fromEntries(given) }];
  });
  return Object.fromEntries(entries);
}

/** Takes some tens of milliseconds; software adapters are told by their names. */
export async function adapterClassOf(gpu: Gpu, shape: ModelShape): Promise<AdapterClass> {
  if (gpu.software) return "software";
  if (!fitsWorkgroups(gpu.limits, TUNINGS.discrete, shape)) return "integrated";
  return await readsFast(gpu, DISCRETE_READ_BYTES_PER_SECOND) ? "discrete" : "integrated";
}

/** Whether the adapter reads `bytesPerSecond` or more of what no cache holds. */
export async function readsFast(gpu: Gpu, bytesPerSecond: number): Promise<boolean> {
  const most = Math.min(READ_BYTES, gpu.bufferBytesMax);
  const groups = Math.floor(most / PEAK_READ_GROUP_BYTES);
  const data = gpu.buffer("speed of reads", groups * PEAK_READ_GROUP_BYTES);
  const sums = gpu.buffer("speed of reads, sums", 4 * groups * PASSES_MAX);
  fillWithNoise(gpu, data);
  const pipeline = await compilePeakRead(gpu);
  const pass = (count: number) => (recorder: Recorder) =>
    peakRead(recorder, pipeline, { data: read(data), sums: write(sums) }, groups, count);
  try {
    for (let passes = PASSES;; passes *= 2) {
      const seconds = await timed(gpu, pass(1), pass(passes));
      if (passes * groups * PEAK_READ_GROUP_BYTES / seconds >= bytesPerSecond) return true;
      if (seconds > SURE_SECONDS || passes === PASSES_MAX) return false;
    }
  } finally {
    gpu.release(data);
    gpu.release(sums);
  }
}

/**
 * Seconds of the dispatch that `record` records, behind that of `warm`; without timestamps those of
 * its submission, which are a bit more.
 */
async function timed(
  gpu: Gpu,
  warm: (recorder: Recorder) => void,
  record: (recorder: Recorder) => void,
): Promise<number> {
  if (gpu.device.features.has("timestamp-query")) {
    const times = await timeDispatches(gpu, (recorder) => {
      warm(recorder);
      record(recorder);
    });
    return times.at(-1)!.nanoseconds / 1e9;
  }
  const recorder = new Recorder(gpu);
  warm(recorder);
  recorder.submit();
  await gpu.device.queue.onSubmittedWorkDone();
  const began = performance.now();
  record(recorder);
  recorder.submit();
  await gpu.device.queue.onSubmittedWorkDone();
  return (performance.now() - began) / 1_000;
}
