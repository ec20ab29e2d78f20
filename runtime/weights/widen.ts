/** Exact conversion of stored floats to f32. */

import type { ElementType } from "./safetensors.ts";

/** Bytes of one stored element of the types that weights may have. */
export function storedElementBytes(type: ElementType): number {
  return type === "F32" ? 4 : type === "F8_E4M3" ? 1 : 2;
}

/** F32, F16 or BF16 bytes (little-endian, any alignment) as f32 values, exactly. */
export function widen(bytes: Uint8Array, type: ElementType): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = storedElementBytes(type);
  const values = new Float32Array(bytes.length / size);
  if (type === "BF16") {
    // Upper half of the f32 of the same value. Bits, not numbers, so that NaN payloads survive.
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = view.getUint16(2 * i, true) << 16;
  } else if (type === "F16") {
    for (let i = 0; i < values.length; i++) values[i] = view.getFloat16(2 * i, true);
  } else {
    new Uint8Array(values.buffer).set(bytes);
  }
  return values;
}
