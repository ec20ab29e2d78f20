/**
 * Weights on the GPU, exactly as they were handed over.
 *
 * Rows of f32, f16, bf16 and fp8 are padded with zeros to a stride of whole 16 elements, so that
 * kernels load 16 bytes at a time and need no tail of their own. q8 and q4 come in whole groups of
 * 32 columns; one matrix is a block of all its rows' elements, then all its rows' f16 scales, so
 * that one binding holds both and both are copied as they come. A tensor larger than one binding
 * spans several parts.
 *
 * The scales of fp8 lie behind the elements of all matrices where the tensor is one part, so that a
 * kernel can read both through one binding, else in a buffer of their own.
 */
import type { Gpu } from "./gpu/gpu.ts";
import type { TensorSpec, WeightFormat } from "./types.ts";

/** Elements to which rows are padded. */
export const STRIDE_ELEMENTS = 16;
/** Rows that are repacked at a time when the file's rows have no padding. */
const REPACK_BYTES = 1 << 20;
/** Bytes of blocks of q8 and q4 matrices, and of scales behind fp8, are multiples of this. */
const BLOCK_ROUNDING_BYTES = 16;
/** Bindings begin at multiples of this (WebGPU's default limit). */
const OFFSET_BYTES = 256;

export const FORMAT_BYTES: Readonly<Record<WeightFormat, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  fp8: 1,
  q8: 1,
  q4: 0.5,
};

/** Columns of q8 and q4 that share a scale. */
export const GROUP_COLUMNS = 32;

/** Whether a format has integers in groups with a scale each. */
export function isGrouped(format: WeightFormat): format is "q8" | "q4" {
  return format === "q8" || format === "q4";
}

/** Groups of 32 columns in a row of a q8 or q4 matrix, the last one padded. */
export function groupCount(columns: number): number {
  return Math.ceil(columns / GROUP_COLUMNS);
}

/** Scales from one row of a q8 or q4 matrix to the next: even, so that rows begin at words. */
export function scaleStride(columns: number): number {
  return 2 * Math.ceil(groupCount(columns) / 2);
}

/**
 * Rows of one matrix, or whole matrices of a stack. f32 to fp8: contiguous [matrixCount * rowCount]
 * [stride]. q8, q4: [matrixCount] blocks of `blockBytes` bytes, each elements [rowCount][groups]
 * [32], then f16 scales [rowCount][scaleStride].
 */
export interface MatrixPart {
  readonly buffer: GPUBuffer;
  /** Bytes of the buffer before the part: other small matrices share it. */
  readonly offset: number;
  readonly matrixStart: number;
  readonly matrixCount: number;
  readonly rowStart: number;
  readonly rowCount: number;
  /** Bytes from one matrix to the next. */
  readonly blockBytes: number;
  /** Bytes of the part, with the scales behind it where there are any. */
  readonly bytes: number;
}

/** Scales of an fp8 tensor: f32 from byte `offset` of `buffer` on. */
export interface ScalePlace {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

export class Matrix {
  /** Elements of the matrix that `write` has received and not yet handed over: part of a row. */
  #pending: Uint8Array = new Uint8Array(0);

  private constructor(
    private readonly gpu: Gpu,
    readonly spec: TensorSpec,
    /** Elements from one row to the next. */
    readonly stride: number,
    readonly parts: readonly MatrixPart[],
    /** f32 [matrices][ceil(rows / rowsPerScale)][ceil(columns / columnsPerScale)], or unused. */
    readonly scales: ScalePlace,
  ) {}

  /**
   * Allocates a weight. No part exceeds `bindingLimitBytes`. Throws when a row alone does, or when
   * memory is refused.
   */
  static allocate(
    gpu: Gpu,
    spec: TensorSpec,
    bindingLimitBytes: number = gpu.limits.maxStorageBufferBindingSize,
  ): Matrix {
    const stride = strideOf(spec);
    const limit = Math.min(bindingLimitBytes, gpu.limits.maxBufferSize);
    const oneRow = blockBytes(spec, stride, 1);
    if (oneRow > limit) {
      throw new Error(
        `allocate "${spec.key}": wanted rows of at most ${limit} bytes, found ${oneRow}`,
      );
    }
    const parts: MatrixPart[] = [];
    const add = (matrixStart: number, matrixCount: number, rowStart: number, rowCount: number) => {
      const block = blockBytes(spec, stride, rowCount);
      const buffer = gpu.buffer(spec.key, block * matrixCount);
      const place = { buffer, offset: 0, blockBytes: block, bytes: block * matrixCount };
      parts.push({ ...place, matrixStart, matrixCount, rowStart, rowCount });
    };
    const matrixBytes = blockBytes(spec, stride, spec.rows);
    const scaleStart = Math.ceil(matrixBytes * spec.matrices / OFFSET_BYTES) * OFFSET_BYTES;
    const withScales = scaleStart +
      Math.ceil(scaleBytes(spec) / BLOCK_ROUNDING_BYTES) * BLOCK_ROUNDING_BYTES;
    if (spec.scale !== null && withScales <= limit) {
      const buffer = gpu.buffer(spec.key, withScales);
      const place = { buffer, offset: 0, blockBytes: matrixBytes, bytes: withScales };
      const all = { matrixStart: 0, matrixCount: spec.matrices, rowStart: 0, rowCount: spec.rows };
      return new Matrix(gpu, spec, stride, [{ ...place, ...all }], { buffer, offset: scaleStart });
    }
    if (matrixBytes <= limit) {
      const together = Math.floor(limit / matrixBytes);
      for (let start = 0; start < spec.matrices; start += together) {
        add(start, Math.min(together, spec.matrices - start), 0, spec.rows);
      }
    } else {
      // A block is rounded up once, so a few rows fewer than this may not fit the limit exactly.
      let together = Math.floor(limit / (oneRow - BLOCK_ROUNDING_BYTES + 1));
      while (blockBytes(spec, stride, together) > limit) together--;
      for (let matrix = 0; matrix < spec.matrices; matrix++) {
        for (let row = 0; row < spec.rows; row += together) {
          add(matrix, 1, row, Math.min(together, spec.rows - row));
        }
      }
    }
    return new Matrix(gpu, spec, stride, parts, allocateScales(gpu, spec));
  }

  /**
   * Allocates small matrices of one part each behind one another in one buffer, so that a kernel
   * reads them through one binding.
   */
  static allocateTogether(gpu: Gpu, label: string, specs: readonly TensorSpec[]): Matrix[] {
    const offsets: number[] = [];
    let end = 0;
    const strides = specs.map(strideOf);
    specs.forEach((spec, index) => {
      offsets.push(end);
      const bytes = blockBytes(spec, strides[index]!, spec.rows);
      end = Math.ceil((end + bytes) / OFFSET_BYTES) * OFFSET_BYTES;
    });
    const buffer = gpu.buffer(label, end);
    return specs.map((spec, index) => {
      const block = blockBytes(spec, strides[index]!, spec.rows);
      const part = {
        buffer,
        offset: offsets[index]!,
        matrixStart: 0,
        matrixCount: spec.matrices,
        rowStart: 0,
        rowCount: spec.rows,
        blockBytes: block,
        bytes: block * spec.matrices,
      };
      return new Matrix(gpu, spec, strides[index]!, [part], allocateScales(gpu, spec));
    });
  }

  /**
   * Copies a piece of matrix `matrix`: `bytes` start `byteOffset` bytes into its rows from
   * `rowBase` on, which are unpadded but for q8 and q4. Pieces arrive in order.
   */
  write(matrix: number, byteOffset: number, bytes: Uint8Array, rowBase = 0): void {
    const rowBytes = this.#givenRowBytes;
    if (byteOffset === 0) this.#pending = new Uint8Array(0);
    const start = byteOffset - this.#pending.length;
    if (
      start % rowBytes !== 0 || byteOffset + bytes.length > rowBytes * (this.spec.rows - rowBase)
    ) {
      throw new Error(
        `write "${this.spec.key}": wanted pieces in order within ${rowBytes * this.spec.rows} ` +
          `bytes, found ${bytes.length} bytes at ${byteOffset}`,
      );
    }
    const data = this.#pending.length === 0 ? bytes : joined(this.#pending, bytes);
    const rowCount = Math.floor(data.length / rowBytes);
    const first = rowBase + start / rowBytes;
    this.#writeRows(matrix, first, rowCount, data.subarray(0, rowCount * rowBytes));
    this.#pending = data.slice(rowCount * rowBytes);
  }

  /**
   * All scales of rows [rowBase, + rowCount) of one matrix, row-major over their grid; `rowBase`: a
   * multiple of rowsPerScale.
   */
  writeScales(
    matrix: number,
    scales: Float32Array,
    rowBase = 0,
    rowCount: number = this.spec.rows,
  ): void {
    const count = scaleCount({ ...this.spec, rows: rowCount });
    if (this.spec.scale === null || scales.length !== count) {
      throw new Error(
        `write scales of "${this.spec.key}": wanted ${count}, ` +
          `found ${scales.length}`,
      );
    }
    const { buffer, offset } = this.scales;
    const before = scaleCount(this.spec) * matrix + scaleCount({ ...this.spec, rows: rowBase });
    this.gpu.write(buffer, offset + 4 * before, scales);
  }

  /**
   * q8 and q4: copies f16 scales, `bytes` from byte `byteOffset` of [rows][scaleStride] of a matrix
   * on, whose rows begin at `rowBase` of the matrix. Pieces begin and end on row borders.
   */
  writeGroupScales(matrix: number, byteOffset: number, bytes: Uint8Array, rowBase = 0): void {
    const rowBytes = 2 * scaleStride(this.spec.columns);
    const start = byteOffset + rowBase * rowBytes;
    const end = start + bytes.length;
    if (
      !isGrouped(this.spec.format) || byteOffset % rowBytes !== 0 || end % rowBytes !== 0 ||
      end > rowBytes * this.spec.rows
    ) {
      throw new Error(
        `write scales of "${this.spec.key}": wanted whole rows of ${rowBytes} bytes of q8 or q4, ` +
          `found ${bytes.length} bytes at ${byteOffset} of ${this.spec.format}`,
      );
    }
    for (const part of this.parts) {
      if (matrix < part.matrixStart || matrix >= part.matrixStart + part.matrixCount) continue;
      const from = Math.max(start, rowBytes * part.rowStart);
      const to = Math.min(end, rowBytes * (part.rowStart + part.rowCount));
      if (from >= to) continue;
      const block = part.offset + (matrix - part.matrixStart) * part.blockBytes;
      const at = block + part.rowCount * this.strideBytes + from - rowBytes * part.rowStart;
      this.gpu.write(part.buffer, at, bytes.subarray(from - start, to - start));
    }
  }

  /** Bytes of a row's elements, padding included. */
  get strideBytes(): number {
    return this.stride * FORMAT_BYTES[this.spec.format];
  }

  get #givenRowBytes(): number {
    const { format, columns } = this.spec;
    return isGrouped(format) ? this.strideBytes : columns * FORMAT_BYTES[format];
  }

  #writeRows(matrix: number, rowStart: number, rowCount: number, rows: Uint8Array): void {
    const rowBytes = this.#givenRowBytes;
    const { strideBytes } = this;
    const padded = rowBytes !== strideBytes;
    const atOnce = padded ? Math.max(1, Math.floor(REPACK_BYTES / strideBytes)) : rowCount;
    for (const part of this.parts) {
      if (matrix < part.matrixStart || matrix >= part.matrixStart + part.matrixCount) continue;
      const from = Math.max(rowStart, part.rowStart);
      const to = Math.min(rowStart + rowCount, part.rowStart + part.rowCount);
      for (let row = from; row < to; row += atOnce) {
        const count = Math.min(atOnce, to - row);
        const source = rows.subarray(
          (row - rowStart) * rowBytes,
          (row - rowStart + count) * rowBytes,
        );
        const start = part.offset + (matrix - part.matrixStart) * part.blockBytes;
        const data = padded ? padRows(source, count, rowBytes, strideBytes) : source;
        this.gpu.write(part.buffer, start + (row - part.rowStart) * strideBytes, data);
      }
    }
  }
}

function strideOf({ format, columns }: TensorSpec): number {
  return isGrouped(format)
    ? GROUP_COLUMNS * groupCount(columns)
    : Math.ceil(columns / STRIDE_ELEMENTS) * STRIDE_ELEMENTS;
}

/** Bytes of `rowCount` rows of one matrix and, for q8 and q4, of their scales. */
function blockBytes({ format, columns }: TensorSpec, stride: number, rowCount: number): number {
  const elements = rowCount * stride * FORMAT_BYTES[format];
  if (!isGrouped(format)) return elements;
  const scales = 2 * rowCount * scaleStride(columns);
  return Math.ceil((elements + scales) / BLOCK_ROUNDING_BYTES) * BLOCK_ROUNDING_BYTES;
}

/** Of all matrices; those of one where there are none, so that a binding is never empty. */
function scaleBytes(spec: TensorSpec): number {
  return 4 * spec.matrices * Math.max(1, scaleCount(spec));
}

function allocateScales(gpu: Gpu, spec: TensorSpec): ScalePlace {
  return { buffer: gpu.buffer(`${spec.key} scales`, scaleBytes(spec)), offset: 0 };
}

/** Scales of one matrix. */
function scaleCount(spec: TensorSpec): number {
  if (spec.scale === null) return 0;
  const { rowsPerScale, columnsPerScale } = spec.scale;
  return Math.ceil(spec.rows / rowsPerScale) * Math.ceil(spec.columns / columnsPerScale);
}

function joined(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const result = new Uint8Array(head.length + tail.length);
  result.set(head);
  result.set(tail, head.length);
  return result;
}

function padRows(
  rows: Uint8Array,
  count: number,
  rowBytes: number,
  strideBytes: number,
): Uint8Array {
  const padded = new Uint8Array(count * strideBytes);
  for (let row = 0; row < count; row++) {
    padded.set(rows.subarray(row * rowBytes, (row + 1) * rowBytes), row * strideBytes);
  }
  return padded;
}
