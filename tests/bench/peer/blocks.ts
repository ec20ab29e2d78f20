/**
 * Elements of a GGUF tensor from f32 values. The blocks hold 32 elements x and one f16 factor d:
 *
 *   Q8_0: d = max|x| / 127, q = round(x / d), 32 bytes of q
 *   Q4_0: d = m / -8 where m is the x of largest magnitude, q = min(15, floor(x / d + 8.5)),
 *         16 bytes: element i in the low half of byte i, element i + 16 in its high half
 *
 * (ggml-org/llama.cpp, ggml/src/ggml-quants.c, the reference quantisers of both types).
 */
import { GGML_TYPES, type GgmlType } from "./gguf.ts";

const BLOCK = 32;

/** `values` in `type`; their number must be a whole number of blocks. */
export function encodeElements(values: Float32Array, type: GgmlType): Uint8Array {
  switch (type) {
    case "F32":
      return new Uint8Array(values.slice().buffer);
    case "F16":
      return new Uint8Array(Float16Array.from(values).buffer);
    case "BF16":
      return encodeBf16(values);
    case "Q8_0":
      return encodeBlocks(values, type, writeQ8);
    case "Q4_0":
      return encodeBlocks(values, type, writeQ4);
  }
}

/** Rounds to nearest, ties to even. */
function encodeBf16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    halves[i] = (bits[i]! + 0x7fff + (bits[i]! >>> 16 & 1)) >>> 16;
  }
  return new Uint8Array(halves.buffer);
}

type BlockWriter = (values: Float32Array, from: number, view: DataView, at: number) => void;

function encodeBlocks(values: Float32Array, type: "Q8_0" | "Q4_0", write: BlockWriter): Uint8Array {
  if (values.length % BLOCK !== 0) {
    throw new Error(`encode ${type}: wanted blocks of ${BLOCK} elements, found ${values.length}`);
  }
  const { blockBytes } = GGML_TYPES[type];
  const bytes = new Uint8Array(values.length / BLOCK * blockBytes);
  const view = new DataView(bytes.buffer);
  for (let from = 0, at = 0; from < values.length; from += BLOCK, at += blockBytes) {
    write(values, from, view, at);
  }
  return bytes;
}

function writeQ8(values: Float32Array, from: number, view: DataView, at: number): void {
  const largest = Math.abs(largestOf(values, from));
  const d = Math.fround(largest / 127);
  const inverse = d === 0 ? 0 : 1 / d;
  view.setFloat16(at, d, true);
  for (let i = 0; i < BLOCK; i++) {
    const scaled = values[from + i]! * inverse;
    // Half away from zero, as C's roundf.
    view.setInt8(at + 2 + i, Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5)));
  }
}

function writeQ4(values: Float32Array, from: number, view: DataView, at: number): void {
  const d = Math.fround(largestOf(values, from) / -8);
  const inverse = d === 0 ? 0 : 1 / d;
  view.setFloat16(at, d, true);
  const level = (i: number) => Math.min(15, Math.floor(values[from + i]! * inverse + 8.5));
  for (let i = 0; i < BLOCK / 2; i++) {
    view.setUint8(at + 2 + i, level(i) | level(i + BLOCK / 2) << 4);
  }
}

/** The value of largest magnitude in a block, with its sign. */
function largestOf(values: Float32Array, from: number): number {
  let largest = 0;
  for (let i = from; i < from + BLOCK; i++) {
    if (Math.abs(values[i]!) > Math.abs(largest)) largest = values[i]!;
  }
  return largest;
}
