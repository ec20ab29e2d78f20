/** Reads a whole safetensors file for tests, sharing no code with the product's loader. */

export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** F32, I32 and BF16 (widened) as numbers. */
  readonly values: Float32Array | Int32Array;
}

export function readSafetensors(path: string): Map<string, StoredTensor> {
  const file = Deno.readFileSync(path);
  const headerBytes = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + headerBytes)));
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries<Record<string, unknown>>(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = entry["data_offsets"] as [number, number];
    const bytes = file.slice(8 + headerBytes + start, 8 + headerBytes + end);
    const dtype = entry["dtype"] as string;
    const shape = entry["shape"] as number[];
    tensors.set(name, { dtype, shape, values: toNumbers(dtype, bytes) });
  }
  return tensors;
}

function toNumbers(dtype: string, bytes: Uint8Array<ArrayBuffer>): Float32Array | Int32Array {
  if (dtype === "I32") return new Int32Array(bytes.buffer);
  if (dtype === "F32") return new Float32Array(bytes.buffer);
  if (dtype !== "BF16") return new Float32Array(0); // no test looks at other types
  const halves = new Uint16Array(bytes.buffer);
  const words = new Uint32Array(halves.length);
  halves.forEach((half, index) => words[index] = half << 16);
  return new Float32Array(words.buffer);
}
