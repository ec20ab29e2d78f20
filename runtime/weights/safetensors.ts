/**
 * Header of a safetensors file: u64 little-endian length, that many bytes of JSON
 * `{name: {dtype, shape, data_offsets: [begin, end]}}`, then the tensors' bytes. All of it is
 * checked before anything is read by it: types, shapes, ranges, and that the ranges tile the rest
 * of the file exactly, so that no byte of the file belongs to no tensor or to two.
 */

import {
  MAX_SAFETENSORS_HEADER_BYTES,
  MAX_SAFETENSORS_TENSORS,
  MAX_TENSOR_DIMENSIONS,
  MAX_TENSOR_NAME_CHARACTERS,
} from "../limits.ts";
import { isObject, parseJsonObject } from "../json_text.ts";
import { quote, refuse, shapeText, show } from "../wording.ts";

/** Bits of one element. F4 and the F6 types pack several elements into a byte. */
const ELEMENT_BITS = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
} as const;

export type ElementType = keyof typeof ELEMENT_BITS;

/** One tensor of a file. */
export interface StoredTensor {
  readonly name: string;
  /** The file's name inside the model folder. */
  readonly file: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly elementCount: number;
  /** Bytes from the file's start. */
  readonly begin: number;
  readonly byteLength: number;
}

/** Bytes before the header. */
export const LENGTH_BYTES = 8;

/**
 * The header's length from a file's first 8 bytes. Throws ModelError when it exceeds 32 MiB or the
 * file.
 */
export function readHeaderLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  const action = `read header of ${quote(file)}`;
  if (prefix.length < LENGTH_BYTES) {
    return refuse(action, `at least ${LENGTH_BYTES} bytes`, `${prefix.length}`);
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES);
  const length = view.getBigUint64(0, true);
  const most = Math.min(MAX_SAFETENSORS_HEADER_BYTES, fileBytes - LENGTH_BYTES);
  if (length < 2n || length > BigInt(most)) {
    return refuse(action, `a header of 2 to ${most} bytes`, `${length}`);
  }
  return Number(length);
}

/**
 * The tensors that a header describes, in the order of their bytes.
 *
 * `header` is the JSON alone; `fileBytes` the size of the whole file. Throws ModelError.
 */
export function parseHeader(header: Uint8Array, fileBytes: number, file: string): StoredTensor[] {
  const action = `read header of ${quote(file)}`;
  const json = parseJsonObject(header, action);
  const tensors: StoredTensor[] = [];
  const dataStart = LENGTH_BYTES + header.length;
  for (const [name, entry] of Object.entries(json)) {
    if (name === "__metadata__") checkMetadata(entry, action);
    else tensors.push(readEntry(name, entry, file, dataStart));
  }
  if (tensors.length > MAX_SAFETENSORS_TENSORS) {
    refuse(action, `at most ${MAX_SAFETENSORS_TENSORS} tensors`, `${tensors.length}`);
  }
  tensors.sort((a, b) => a.begin - b.begin || a.byteLength - b.byteLength);
  checkTiling(tensors, dataStart, fileBytes, file);
  return tensors;
}

function checkMetadata(value: unknown, action: string): void {
  if (!isObject(value) || Object.values(value).some((v) => typeof v !== "string")) {
    refuse(action, `"__metadata__" an object of strings`, show(value));
  }
}

function readEntry(name: string, entry: unknown, file: string, dataStart: number): StoredTensor {
  const action = `read tensor ${quote(name)} in ${quote(file)}`;
  if (name === "" || name.length > MAX_TENSOR_NAME_CHARACTERS) {
    refuse(action, `a name of 1 to ${MAX_TENSOR_NAME_CHARACTERS} characters`, `${name.length}`);
  }
  if (!isObject(entry)) return refuse(action, "an object", show(entry));
  for (const key of Object.keys(entry)) {
    if (key !== "dtype" && key !== "shape" && key !== "data_offsets") {
      refuse(action, `keys "dtype", "shape" and "data_offsets"`, quote(key));
    }
  }
  const type = entry.dtype;
  if (typeof type !== "string" || !Object.hasOwn(ELEMENT_BITS, type)) {
    return refuse(action, `"dtype" one of ${Object.keys(ELEMENT_BITS).join(" ")}`, show(type));
  }
  const elementType = type as ElementType;
  const shape = readShape(entry.shape, action);
  let elementCount = 1;
  let inRange = true;
  for (const size of shape) {
    elementCount *= size;
    inRange &&= Number.isSafeInteger(elementCount * ELEMENT_BITS[elementType]);
  }
  const byteLength = elementCount * ELEMENT_BITS[elementType] / 8;
  if (!inRange || !Number.isInteger(byteLength)) {
    refuse(action, "a whole number of bytes and below 2^53 bits", `${type} ${shapeText(shape)}`);
  }
  const begin = readOffsets(entry.data_offsets, byteLength, `${type} ${shapeText(shape)}`, action);
  return {
    name,
    file,
    type: elementType,
    shape,
    elementCount,
    begin: dataStart + begin,
    byteLength,
  };
}

function readShape(value: unknown, action: string): number[] {
  const wanted = `"shape" up to ${MAX_TENSOR_DIMENSIONS} non-negative integers`;
  if (!Array.isArray(value) || value.length > MAX_TENSOR_DIMENSIONS || !value.every(isCount)) {
    return refuse(action, wanted, show(value));
  }
  return value;
}

/** Begin of the range; it must be as long as type and shape say. */
function readOffsets(value: unknown, byteLength: number, what: string, action: string): number {
  if (!Array.isArray(value) || value.length !== 2 || !value.every(isCount)) {
    return refuse(action, `"data_offsets" two non-negative integers`, show(value));
  }
  const [begin, end] = value as [number, number];
  if (end - begin !== byteLength) {
    refuse(action, `${byteLength} bytes for ${what}`, `data_offsets ${shapeText(value)}`);
  }
  return begin;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

/** Every byte after the header belongs to exactly one tensor. `tensors` are sorted by begin. */
function checkTiling(
  tensors: readonly StoredTensor[],
  dataStart: number,
  fileBytes: number,
  file: string,
): void {
  let end = dataStart;
  for (const tensor of tensors) {
    if (tensor.begin !== end) {
      const fault = tensor.begin > end ? "a gap" : "an overlap";
      const action = `read tensor ${quote(tensor.name)} in ${quote(file)}`;
      refuse(action, `data from byte ${end - dataStart}`, `${tensor.begin - dataStart}, ${fault}`);
    }
    end += tensor.byteLength;
  }
  if (end !== fileBytes) {
    const fault = fileBytes < end ? "the file is cut short" : "bytes after the last tensor";
    refuse(`read ${quote(file)}`, `${end} bytes as its header says`, `${fileBytes}: ${fault}`);
  }
}
