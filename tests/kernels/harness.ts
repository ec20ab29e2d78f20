/** What every kernel test needs: one adapter, data in and out, guard words around outputs. */
import assert from "node:assert";
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";

/** Floats before and after a guarded output; 256 bytes, so that the output can be bound alone. */
const GUARD_WORDS = 64;
const GUARD_BITS = 0xfeedbeef;
/** A quiet NaN: an element that a kernel does not write shows. */
const NAN_BITS = 0x7fc00000;
const READBACK_BYTES = 64 << 20;

let opened: Promise<{ gpu: Gpu; readback: Readback }> | null = null;

function open(): Promise<{ gpu: Gpu; readback: Readback }> {
  return opened ??= (async () => {
    const gpu = await openGpu({ software: true });
    return { gpu, readback: await Readback.create(gpu, READBACK_BYTES) };
  })();
}

/** Registers a test that needs an adapter; one device serves all tests of a file. */
export function withGpu(name: string, body: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    // The shared device outlives the test that opened it.
    sanitizeResources: false,
    sanitizeOps: false,
    fn: async () => {
      const { gpu } = await open();
      await body(gpu);
      gpu.check();
    },
  });
}

export type Words = Float32Array | Uint32Array | Int32Array | Uint16Array | Uint8Array;

/** A storage buffer that holds `data`. */
export function upload(gpu: Gpu, data: Words): GPUBuffer {
  const buffer = gpu.buffer("test input", data.byteLength);
  const bytes = new Uint8Array(Math.ceil(data.byteLength / 4) * 4);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  gpu.write(buffer, 0, bytes);
  return buffer;
}

/** The first `count` floats of a buffer, after everything `recorder` holds has run. */
export async function download(
  gpu: Gpu,
  buffer: GPUBuffer,
  count: number,
  recorder: Recorder = new Recorder(gpu),
): Promise<Float32Array> {
  const { readback } = await open();
  return new Float32Array(await readback.read(recorder, buffer, 0, 4 * count));
}

/**
 * An output of `count` floats, filled with NaN, between guard words. Bind it at `offset`, `bytes`.
 */
export interface Guarded {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
  readonly count: number;
}

export function guarded(gpu: Gpu, count: number): Guarded {
  const words = new Uint32Array(GUARD_WORDS + count + GUARD_WORDS).fill(GUARD_BITS);
  words.fill(NAN_BITS, GUARD_WORDS, GUARD_WORDS + count);
  return { buffer: upload(gpu, words), offset: 4 * GUARD_WORDS, bytes: 4 * count, count };
}

/** The floats of a guarded output; asserts that the guard words are untouched. */
export async function takeGuarded(
  gpu: Gpu,
  output: Guarded,
  recorder: Recorder = new Recorder(gpu),
): Promise<Float32Array> {
  const total = GUARD_WORDS + output.count + GUARD_WORDS;
  const words = new Uint32Array((await download(gpu, output.buffer, total, recorder)).buffer);
  const ends = [...words.subarray(0, GUARD_WORDS), ...words.subarray(GUARD_WORDS + output.count)];
  assert.ok(ends.every((word) => word === GUARD_BITS), "a kernel wrote outside its output");
  return new Float32Array(words.buffer, 4 * GUARD_WORDS, output.count);
}
