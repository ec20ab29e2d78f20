/** Random weights on the GPU with their exact values, and activations that provoke errors. */
import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Matrix } from "../../kernels/matrix.ts";
import type { FloatFormat } from "../../kernels/weight_preludes.ts";
import { normalizedError, worstError } from "../reference/compare.ts";
import {
  dequantize,
  dequantizeGroups,
  quantize,
  quantizeGroups,
  type Reals,
  type ScaleGrid,
} from "../reference/formats.ts";
import { normals } from "../reference/random.ts";

export const FORMATS: readonly FloatFormat[] = ["f32", "f16", "bf16", "fp8"];

export const GROUPED_FORMATS = ["q8", "q4"] as const;

/** What `randomMatrix` makes; matrices, scales and the binding limit default to 1, none, none. */
export interface MatrixWish {
  readonly format: FloatFormat;
  readonly rows: number;
  readonly columns: number;
  readonly matrices?: number;
  readonly scale?: { readonly rowsPerScale: number; readonly columnsPerScale: number };
  readonly bindingLimitBytes?: number;
}

/** A matrix on the GPU and, for each matrix of the stack, its exact values [rows, columns]. */
export function randomMatrix(
  gpu: Gpu,
  random: () => number,
  wish: MatrixWish,
): { matrix: Matrix; values: Float64Array[] } {
  const { format, rows, columns, matrices = 1 } = wish;
  const scale = format === "fp8" ? wish.scale ?? { rowsPerScale: 8, columnsPerScale: 8 } : null;
  const spec = { key: `random.${format}`, format, matrices, rows, columns, scale };
  const matrix = Matrix.allocate(gpu, spec, wish.bindingLimitBytes);
  const values = [];
  for (let index = 0; index < matrices; index++) {
    const grid = scale === null ? null : randomScales(random, rows, columns, scale);
    const stored = quantize(
      randomWeights(random, format, rows * columns),
      rows,
      columns,
      format,
      grid,
    );
    matrix.write(index, 0, stored.bytes);
    if (grid !== null) matrix.writeScales(index, Float32Array.from(grid.values));
    values.push(dequantize(stored));
  }
  return { matrix, values };
}

/**
 * A q8 or q4 matrix as `randomMatrix` makes others. Some groups are zero, some have a subnormal f16
 * as their scale.
 */
export function randomGroups(
  gpu: Gpu,
  random: () => number,
  wish: Omit<MatrixWish, "format" | "scale"> & { readonly format: "q8" | "q4" },
): { matrix: Matrix; values: Float64Array[] } {
  const { format, rows, columns, matrices = 1 } = wish;
  const spec = { key: `random.${format}`, format, matrices, rows, columns, scale: null };
  const matrix = Matrix.allocate(gpu, spec, wish.bindingLimitBytes);
  const values = [];
  for (let index = 0; index < matrices; index++) {
    const weights = normals(random, rows * columns, 0.5);
    for (let start = 0; start < weights.length; start += 32) {
      const dice = random();
      const factor = dice < 0.03 ? 0 : dice < 0.06 ? 1e-5 : 1;
      for (let i = start; i < Math.min(start + 32, weights.length); i++) weights[i]! *= factor;
    }
    const stored = quantizeGroups(weights, rows, columns, format);
    matrix.write(index, 0, stored.bytes);
    const { buffer, byteOffset, byteLength } = stored.scales;
    matrix.writeGroupScales(index, 0, new Uint8Array(buffer, byteOffset, byteLength));
    values.push(dequantizeGroups(stored));
  }
  return { matrix, values };
}

/** Normal weights, with zeros, subnormals of f16 and fp8, and a few large ones. */
function randomWeights(random: () => number, format: FloatFormat, count: number): Float32Array {
  const values = normals(random, count, 0.5);
  for (let index = 0; index < count; index++) {
    const dice = random();
    if (dice < 0.02) values[index] = 0;
    else if (dice < 0.04) values[index] = format === "f16" ? 3e-6 : 2e-3;
    else if (dice < 0.05) values[index] = -40;
  }
  return values;
}

function randomScales(
  random: () => number,
  rows: number,
  columns: number,
  scale: { readonly rowsPerScale: number; readonly columnsPerScale: number },
): ScaleGrid {
  const count = Math.ceil(rows / scale.rowsPerScale) * Math.ceil(columns / scale.columnsPerScale);
  return { ...scale, values: Float32Array.from({ length: count }, () => 0.25 + random()) };
}

/**
 * Activations [rows][stride]: normal values with zeros, subnormals and large ones in the first
 * `columns` of each row, NaN in the rest, which must not be read.
 */
export function randomRows(
  random: () => number,
  rows: number,
  columns: number,
  stride: number,
): Float32Array {
  const x = new Float32Array(rows * stride).fill(NaN);
  for (let row = 0; row < rows; row++) {
    const values = normals(random, columns);
    for (let column = 0; column < columns; column++) {
      const dice = random();
      if (dice < 0.02) values[column] = 0;
      else if (dice < 0.03) values[column] = 1e-40;
      else if (row % 5 === 4 && dice > 0.98) values[column] = 1e12;
    }
    x.set(values, row * stride);
  }
  return x;
}

/** Columns [offset, offset + width) of rows of `stride`. */
export function columnsOf<T extends Reals>(
  x: T,
  stride: number,
  width: number,
  offset = 0,
): Float64Array {
  const rows = Math.floor(x.length / stride);
  const part = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) {
    part.set(x.subarray(row * stride + offset, row * stride + offset + width), row * width);
  }
  return part;
}

/** Asserts both bounds for each row of `width`: a row of large values must not hide the others. */
export function assertClose(found: Reals, wanted: Reals, width: number, what: string): void {
  assert.equal(found.length, wanted.length, what);
  for (let start = 0; start < wanted.length; start += width) {
    const foundRow = found.subarray(start, start + width);
    const wantedRow = wanted.subarray(start, start + width);
    const error = normalizedError(foundRow, wantedRow);
    const worst = worstError(foundRow, wantedRow);
    const row = start / width;
    assert.ok(error <= 1e-10, `${what}: row ${row}: normalised squared error ${error}`);
    assert.ok(worst <= 1e-4, `${what}: row ${row}: worst element ${worst}`);
  }
}

/** Asserts equal bits, NaN included. */
export function assertSameBits(found: Float32Array, wanted: Float32Array, what: string): void {
  const bits = (x: Float32Array) => new Uint32Array(x.buffer, x.byteOffset, x.length);
  assert.equal(found.length, wanted.length, what);
  const wantedBits = bits(wanted);
  const differs = bits(found).findIndex((word, index) => word !== wantedBits[index]);
  assert.ok(differs < 0, `${what}: element ${differs}: ${found[differs]} and ${wanted[differs]}`);
}
