/**
 * Weights on the GPU, exactly as the file holds them.
 *
 * Rows are padded with zeros to a stride of whole 16 elements, so that kernels load 16 bytes at a
 * time and need no tail of their own. A tensor larger than one binding spans several parts.
 */
import type { Gpu } from "./gpu/gpu.ts";
import type { TensorSpec, WeightFormat } from "./types.ts";

/** Elements to which rows are padded. */
export const STRIDE_ELEMENTS = 16;
/** Rows that are repacked at a time when the file's rows have no padding. */
const REPACK_BYTES = 1 << 20;

export const FORMAT_BYTES: Readonly<Record<WeightFormat, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  fp8: 1,
};

/**
 * Rows of one matrix, or whole matrices of a stack: contiguous [matrixCount * rowCount][stride].
 */
export interface MatrixPart {
  readonly buffer: GPUBuffer;
  readonly matrixStart: number;
  readonly matrixCount: number;
  readonly rowStart: number;
  readonly rowCount: number;
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
    /** f32 [matrices][ceil(rows / rowsPerScale)][ceil(columns / columnsPerScale)], or 16 bytes. */
    readonly scales: GPUBuffer,
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
    const stride = Math.ceil(spec.columns / STRIDE_ELEMENTS) * STRIDE_ELEMENTS;
    const rowBytes = stride * FORMAT_BYTES[spec.format];
    const limit = Math.min(bindingLimitBytes, gpu.limits.maxBufferSize);
    if (rowBytes > limit) {
      throw new Error(
        `allocate "${spec.key}": wanted rows of at most ${limit} bytes, found ${rowBytes}`,
      );
    }
    const parts: MatrixPart[] = [];
    const matrixBytes = rowBytes * spec.rows;
    if (matrixBytes <= limit) {
      const together = Math.floor(limit / matrixBytes);
      for (let start = 0; start < spec.matrices; start += together) {
        const count = Math.min(together, spec.matrices - start);
        const buffer = gpu.buffer(spec.key, matrixBytes * count);
        parts.push({
          buffer,
          matrixStart: start,
          matrixCount: count,
          rowStart: 0,
          rowCount: spec.rows,
        });
      }
    } else {
      const together = Math.floor(limit / rowBytes);
      for (let matrix = 0; matrix < spec.matrices; matrix++) {
        for (let row = 0; row < spec.rows; row += together) {
          const rowCount = Math.min(together, spec.rows - row);
          const buffer = gpu.buffer(spec.key, rowBytes * rowCount);
          parts.push({ buffer, matrixStart: matrix, matrixCount: 1, rowStart: row, rowCount });
        }
      }
    }
    const scales = gpu.buffer(`${spec.key} scales`, 4 * spec.matrices * scaleCount(spec));
    return new Matrix(gpu, spec, stride, parts, scales);
  }

  /**
   * Copies a piece of matrix `matrix`: `bytes` start `byteOffset` bytes into its unpadded rows.
   * Pieces of a matrix arrive in order.
   */
  write(matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const elementBytes = FORMAT_BYTES[this.spec.format];
    const rowBytes = this.spec.columns * elementBytes;
    if (byteOffset === 0) this.#pending = new Uint8Array(0);
    const start = byteOffset - this.#pending.length;
    if (start % rowBytes !== 0 || byteOffset + bytes.length > rowBytes * this.spec.rows) {
      throw new Error(
        `write "${this.spec.key}": wanted pieces in order within ${rowBytes * this.spec.rows} ` +
          `bytes, found ${bytes.length} bytes at ${byteOffset}`,
      );
    }
    const data = this.#pending.length === 0 ? bytes : joined(this.#pending, bytes);
    const rowCount = Math.floor(data.length / rowBytes);
    this.#writeRows(matrix, start / rowBytes, rowCount, data.subarray(0, rowCount * rowBytes));
    this.#pending = data.slice(rowCount * rowBytes);
  }

  /** All scales of one matrix, row-major over its grid. */
  writeScales(matrix: number, scales: Float32Array): void {
    const count = scaleCount(this.spec);
    if (this.spec.scale === null || scales.length !== count) {
      throw new Error(
        `write scales of "${this.spec.key}": wanted ${this.spec.scale === null ? 0 : count}, ` +
          `found ${scales.length}`,
      );
    }
    this.gpu.write(this.scales, 4 * count * matrix, scales);
  }

  #writeRows(matrix: number, rowStart: number, rowCount: number, rows: Uint8Array): void {
    const rowBytes = this.spec.columns * FORMAT_BYTES[this.spec.format];
    const strideBytes = this.stride * FORMAT_BYTES[this.spec.format];
    const atOnce = Math.max(1, Math.floor(REPACK_BYTES / strideBytes));
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
        const padded = padRows(source, count, rowBytes, strideBytes);
        const inPart = (matrix - part.matrixStart) * part.rowCount + row - part.rowStart;
        this.gpu.write(part.buffer, inPart * strideBytes, padded);
      }
    }
  }
}

/** Scales of one matrix; 1 where there are none, so that the binding is never empty. */
function scaleCount(spec: TensorSpec): number {
  if (spec.scale === null) return 1;
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
  if (rowBytes === strideBytes) return rows;
  const padded = new Uint8Array(count * strideBytes);
  for (let row = 0; row < count; row++) {
    padded.set(rows.subarray(row * rowBytes, (row + 1) * rowBytes), row * strideBytes);
  }
  return padded;
}
