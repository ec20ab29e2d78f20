/** Reads small GGUF files for tests, sharing nothing with the writer. */
import assert from "node:assert/strict";
import { decodeBf16, decodeF16 } from "../../reference/formats.ts";

export interface ReadTensor {
  readonly type: string;
  readonly dimensions: number[];
  values(): number[];
}

export interface ReadFile {
  readonly metadata: Map<string, unknown>;
  readonly tensors: Map<string, ReadTensor>;
}

/** Type names by number, elements and bytes of a block. */
const TYPES: Record<number, [name: string, elements: number, bytes: number]> = {
  0: ["F32", 1, 4],
  1: ["F16", 1, 2],
  2: ["Q4_0", 32, 18],
  8: ["Q8_0", 32, 34],
  30: ["BF16", 1, 2],
};

/** A whole file; asserts that the tensors' bytes lie in order, aligned, up to the file's end. */
export function readGguf(path: string): ReadFile {
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const text = () => {
    const length = u64();
    return new TextDecoder().decode(bytes.subarray(at, at += length));
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return u32() | 0;
    if (type === 6) return view.getFloat32((at += 4) - 4, true);
    if (type === 7) return bytes[at++] === 1;
    if (type === 8) return text();
    assert.equal(type, 9, "a type of value that these files have");
    const element = u32();
    return Array.from({ length: u64() }, () => value(element));
  };
  assert.equal(new TextDecoder().decode(bytes.subarray(0, at += 4)), "GGUF");
  assert.equal(u32(), 3);
  const tensorCount = u64();
  const keyCount = u64();
  const metadata = new Map(Array.from({ length: keyCount }, () => [text(), value(u32())]));
  const infos = Array.from({ length: tensorCount }, () => ({
    name: text(),
    dimensions: Array.from({ length: u32() }, () => u64()),
    type: TYPES[u32()]!,
    offset: u64(),
  }));
  const start = Math.ceil(at / 32) * 32;
  let end = 0;
  const tensors = new Map(
    infos.map(({ name, dimensions, type: [type, elements, size], offset }) => {
      assert.equal(offset, Math.ceil(end / 32) * 32, `offset of ${name}`);
      const count = dimensions.reduce((a, b) => a * b, 1);
      end = offset + count / elements * size;
      const data = new DataView(bytes.buffer, start + offset, count / elements * size);
      const values = () => Array.from({ length: count }, (_, i) => element(data, type, i));
      return [name, { type, dimensions, values }];
    }),
  );
  assert.equal(bytes.length, start + Math.ceil(end / 32) * 32, "the file's size");
  return { metadata, tensors };
}

function element(data: DataView, type: string, index: number): number {
  if (type === "F32") return data.getFloat32(4 * index, true);
  if (type === "F16") return decodeF16(data.getUint16(2 * index, true));
  if (type === "BF16") return decodeBf16(data.getUint16(2 * index, true));
  const [block, place] = [Math.floor(index / 32), index % 32];
  if (type === "Q8_0") {
    return decodeF16(data.getUint16(34 * block, true)) * data.getInt8(34 * block + 2 + place);
  }
  const byte = data.getUint8(18 * block + 2 + place % 16);
  const level = place < 16 ? byte & 15 : byte >>> 4;
  return decodeF16(data.getUint16(18 * block, true)) * (level - 8);
}
