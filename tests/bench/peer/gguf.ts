/**
 * GGUF version 3, little-endian: magic, version, counts, key-values, tensor infos, then the
 * tensors' bytes, each beginning at a multiple of 32 (ggml-org/llama.cpp, ggml/include/gguf.h).
 */

/** Element types of tensors, by ggml's numbers, with the bytes of one block of elements. */
export const GGML_TYPES = {
  F32: { id: 0, blockElements: 1, blockBytes: 4 },
  F16: { id: 1, blockElements: 1, blockBytes: 2 },
  Q4_0: { id: 2, blockElements: 32, blockBytes: 18 },
  Q8_0: { id: 8, blockElements: 32, blockBytes: 34 },
  BF16: { id: 30, blockElements: 1, blockBytes: 2 },
} as const;

export type GgmlType = keyof typeof GGML_TYPES;

/** A value of the header, by the name of its type in GGUF. */
export type GgufValue =
  | { readonly type: "u32" | "i32" | "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "u32s" | "i32s"; readonly value: readonly number[] }
  | { readonly type: "strings"; readonly value: readonly string[] };

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

export interface GgufTensor {
  readonly name: string;
  /** Fastest dimension first, as ggml's `ne`: the reverse of a safetensors shape. */
  readonly dimensions: readonly number[];
  readonly type: GgmlType;
}

const MAGIC = 0x46554747;
const VERSION = 3;
const ALIGNMENT_BYTES = 32;
const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/** Bytes of a tensor's data. Throws where a row is no whole number of blocks. */
export function tensorBytes({ name, dimensions, type }: GgufTensor): number {
  const { blockElements, blockBytes } = GGML_TYPES[type];
  const columns = dimensions[0]!;
  if (columns % blockElements !== 0) {
    const wanted = `rows of a multiple of ${blockElements} elements`;
    throw new Error(`lay out tensor "${name}" as ${type}: wanted ${wanted}, found ${columns}`);
  }
  const elements = dimensions.reduce((product, size) => product * size, 1);
  return elements / blockElements * blockBytes;
}

/** Everything before the tensors' bytes, padded to where the first of them begins. */
export function encodeHeader(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new ByteWriter();
  out.u32(MAGIC);
  out.u32(VERSION);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.string(key);
    writeValue(out, value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    out.string(tensor.name);
    out.u32(tensor.dimensions.length);
    for (const size of tensor.dimensions) out.u64(size);
    out.u32(GGML_TYPES[tensor.type].id);
    out.u64(offset);
    offset = aligned(offset + tensorBytes(tensor));
  }
  out.pad(aligned(out.length) - out.length);
  return out.bytes();
}

/**
 * Writes a file; `data` gives each tensor's bytes in pieces, in the order of `tensors`. Returns the
 * file's size. Throws where a tensor's pieces are not as long together as its type and dimensions.
 */
export function writeGguf(
  path: string,
  metadata: GgufMetadata,
  tensors: readonly GgufTensor[],
  data: (index: number) => Iterable<Uint8Array>,
): number {
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  let size = writeFully(file, encodeHeader(metadata, tensors));
  tensors.forEach((tensor, index) => {
    const wanted = tensorBytes(tensor);
    let found = 0;
    for (const piece of data(index)) found += writeFully(file, piece);
    if (found !== wanted) {
      throw new Error(`write tensor "${tensor.name}": wanted ${wanted} bytes, found ${found}`);
    }
    size += found + writeFully(file, new Uint8Array(aligned(found) - found));
  });
  return size;
}

function writeFully(file: Deno.FsFile, bytes: Uint8Array): number {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  return bytes.length;
}

function aligned(offset: number): number {
  return Math.ceil(offset / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

function writeValue(out: ByteWriter, value: GgufValue): void {
  switch (value.type) {
    case "bool":
      out.u32(VALUE_TYPES.bool);
      return out.byte(value.value ? 1 : 0);
    case "string":
      out.u32(VALUE_TYPES.string);
      return out.string(value.value);
    case "strings":
      out.array(VALUE_TYPES.string, value.value.length);
      return value.value.forEach((text) => out.string(text));
    case "u32s":
    case "i32s":
      out.array(value.type === "u32s" ? VALUE_TYPES.u32 : VALUE_TYPES.i32, value.value.length);
      return value.value.forEach((number) => out.u32(number));
    case "f32":
      out.u32(VALUE_TYPES.f32);
      return out.f32(value.value);
    case "u32":
    case "i32":
      out.u32(VALUE_TYPES[value.type]);
      return out.u32(value.value);
  }
}

/** Little-endian bytes that grow. */
class ByteWriter {
  length = 0;
  private buffer = new Uint8Array(1 << 16);
  private readonly encoder = new TextEncoder();

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }

  byte(value: number): void {
    this.append(Uint8Array.of(value));
  }

  /** Also a negative number, as two's complement. */
  u32(value: number): void {
    this.append(Uint32Array.of(value));
  }

  u64(value: number): void {
    this.append(BigUint64Array.of(BigInt(value)));
  }

  f32(value: number): void {
    this.append(Float32Array.of(value));
  }

  string(text: string): void {
    const bytes = this.encoder.encode(text);
    this.u64(bytes.length);
    this.append(bytes);
  }

  array(elementType: number, length: number): void {
    this.u32(VALUE_TYPES.array);
    this.u32(elementType);
    this.u64(length);
  }

  pad(bytes: number): void {
    this.append(new Uint8Array(bytes));
  }

  private append(values: ArrayBufferView<ArrayBuffer>): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const end = this.length + bytes.length;
    if (end > this.buffer.length) {
      const larger = new Uint8Array(2 * end);
      larger.set(this.buffer);
      this.buffer = larger;
    }
    this.buffer.set(bytes, this.length);
    this.length = end;
  }
}
