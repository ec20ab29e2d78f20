/** Number formats of weights and latents: exact decoders, encoders that round to nearest even. */

/** The reals a reference form takes: f32 inputs are widened exactly, every sum is in f64. */
export type Reals = Float64Array | Float32Array;

const scratch = new DataView(new ArrayBuffer(8));

/** bf16 bits to the exact value: the upper half of an f32. */
export function decodeBf16(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** Nearest bf16 bits of `value` (rounded to f32 first), ties to even. NaN stays NaN. */
export function encodeBf16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** f16 bits to the exact value, subnormals, infinities and NaN included. */
export function decodeF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Nearest f16 bits of `value`, ties to even; too large becomes infinity. */
export function encodeF16(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24);
  const exponent = exponentOf(magnitude);
  // A fraction that rounds up to 2 carries into the exponent field by plain addition.
  return sign | (((exponent + 14) << 10) + roundHalfEven(magnitude * 2 ** (10 - exponent)));
}

/** e4m3fn bits to the exact value: bias 7, no infinities, 0x7f and 0xff are NaN, largest 448. */
export function decodeE4m3(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >>> 3) & 15;
  const fraction = bits & 7;
  if ((bits & 0x7f) === 0x7f) return NaN;
  if (exponent === 0) return sign * fraction * 2 ** -9;
  return sign * (1 + fraction / 8) * 2 ** (exponent - 7);
}

/** Nearest e4m3fn bits of `value`, ties to even; beyond 448 saturates; NaN becomes 0x7f. */
export function encodeE4m3(value: number): number {
  if (Number.isNaN(value)) return 0x7f;
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(value), 448);
  if (magnitude < 2 ** -6) return sign | roundHalfEven(magnitude * 2 ** 9);
  const exponent = exponentOf(magnitude);
  const code = ((exponent + 6) << 3) + roundHalfEven(magnitude * 2 ** (3 - exponent));
  return sign | Math.min(code, 0x7e);
}

/** The grid of scales over a matrix, as `TensorSpec.scale` states it. */
export interface ScaleGrid {
  readonly rowsPerScale: number;
  readonly columnsPerScale: number;
  /** [ceil(rows / rowsPerScale), ceil(columns / columnsPerScale)], row-major. */
  readonly values: Reals;
}

/** A stored matrix [rows, columns]: raw little-endian elements and, for fp8, its scales. */
export interface StoredMatrix {
  readonly format: "f32" | "f16" | "bf16" | "fp8";
  readonly rows: number;
  readonly columns: number;
  readonly bytes: Uint8Array;
  readonly scale: ScaleGrid | null;
}

/** Bytes of one element. */
export function elementBytes(format: StoredMatrix["format"]): number {
  return { f32: 4, f16: 2, bf16: 2, fp8: 1 }[format];
}

/** The exact values of a stored matrix, [rows, columns]. */
export function dequantize(matrix: StoredMatrix): Float64Array {
  const { format, rows, columns, bytes, scale } = matrix;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float64Array(rows * columns);
  const scaleColumns = scale ? Math.ceil(columns / scale.columnsPerScale) : 0;
  for (let index = 0; index < values.length; index++) {
    let value: number;
    if (format === "f32") value = view.getFloat32(index * 4, true);
    else if (format === "f16") value = decodeF16(view.getUint16(index * 2, true));
    else if (format === "bf16") value = decodeBf16(view.getUint16(index * 2, true));
    else value = decodeE4m3(view.getUint8(index));
    if (scale) {
      const row = Math.floor(index / columns / scale.rowsPerScale);
      const column = Math.floor((index % columns) / scale.columnsPerScale);
      value *= scale.values[row * scaleColumns + column]!;
    }
    values[index] = value;
  }
  return values;
}

/** Stores real values in `format` (fp8: each value is divided by its scale before rounding). */
export function quantize(
  values: Reals,
  rows: number,
  columns: number,
  format: StoredMatrix["format"],
  scale: ScaleGrid | null = null,
): StoredMatrix {
  const bytes = new Uint8Array(values.length * elementBytes(format));
  const view = new DataView(bytes.buffer);
  const scaleColumns = scale ? Math.ceil(columns / scale.columnsPerScale) : 0;
  for (let index = 0; index < values.length; index++) {
    let value = values[index]!;
    if (scale) {
      const row = Math.floor(index / columns / scale.rowsPerScale);
      const column = Math.floor((index % columns) / scale.columnsPerScale);
      value /= scale.values[row * scaleColumns + column]!;
    }
    if (format === "f32") view.setFloat32(index * 4, value, true);
    else if (format === "f16") view.setUint16(index * 2, encodeF16(value), true);
    else if (format === "bf16") view.setUint16(index * 2, encodeBf16(value), true);
    else view.setUint8(index, encodeE4m3(value));
  }
  return { format, rows, columns, bytes, scale };
}

function exponentOf(magnitude: number): number {
  scratch.setFloat64(0, magnitude);
  return ((scratch.getUint32(0) >>> 20) & 0x7ff) - 1023;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** Elements of a group of q8 and q4, which share a scale. */
export const GROUP = 32;

/** A q8 or q4 matrix [rows, columns] as `TensorSpec` states it, rows padded to whole groups. */
export interface GroupedMatrix {
  readonly format: "q8" | "q4";
  readonly rows: number;
  readonly columns: number;
  /** q8: [rows][groups][32] signed bytes; q4: [rows][groups][16], even columns low, q + 8. */
  readonly bytes: Uint8Array;
  /** f16 bits [rows][groups rounded up to an even count]. */
  readonly scales: Uint16Array;
}

/** Stores [rows, columns] with the scale that takes each group's largest to 127, in q4 to 7. */
export function quantizeGroups(
  values: Reals,
  rows: number,
  columns: number,
  format: "q8" | "q4",
): GroupedMatrix {
  const groups = Math.ceil(columns / GROUP);
  const stride = 2 * Math.ceil(groups / 2);
  const bytes = new Uint8Array(rows * groups * GROUP / (format === "q4" ? 2 : 1));
  const scales = new Uint16Array(rows * stride);
  const largest = format === "q4" ? 7 : 127;
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const start = row * columns + group * GROUP;
      const end = Math.min(start + GROUP, (row + 1) * columns);
      const bits = encodeF16(
        largestMagnitude(values, start, end) / largest,
      );
      scales[row * stride + group] = bits;
      const scale = decodeF16(bits);
      for (let i = 0; i < GROUP; i++) {
        const value = start + i < end && scale > 0 ? roundHalfEven(values[start + i]! / scale) : 0;
        const q = Math.max(-largest, Math.min(largest, value));
        const at = (row * groups + group) * GROUP + i;
        if (format === "q8") bytes[at] = q;
        else bytes[at >> 1]! |= (q + 8) << (4 * (at & 1));
      }
    }
  }
  return { format, rows, columns, bytes, scales };
}

/** The exact values of a q8 or q4 matrix, [rows, columns]. */
export function dequantizeGroups(matrix: GroupedMatrix): Float64Array {
  const { format, rows, columns, bytes, scales } = matrix;
  const groups = Math.ceil(columns / GROUP);
  const stride = 2 * Math.ceil(groups / 2);
  return Float64Array.from({ length: rows * columns }, (_, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const at = row * groups * GROUP + column;
    const q = format === "q8"
      ? bytes[at]! << 24 >> 24
      : ((bytes[at >> 1]! >> (4 * (at & 1))) & 15) - 8;
    return q * decodeF16(scales[row * stride + Math.floor(column / GROUP)]!);
  });
}

/**
 * Activations [rows, columns] as the integer kernels see them: each group of 32 columns of a row
 * rounded to int8 multiples of its largest magnitude / 127 (f32 arithmetic, ties to even). Groups
 * below 2^-100 count as 0.
 */
export function roundToInt8Groups(x: Reals, columns: number): Float64Array {
  const result = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += columns) {
    for (let first = start; first < start + columns; first += GROUP) {
      const end = Math.min(first + GROUP, start + columns);
      const largest = largestMagnitude(x, first, end);
      const scale = largest >= 2 ** -100 ? Math.fround(largest / 127) : 0;
      const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
      for (let i = first; i < end; i++) {
        result[i] = roundHalfEven(Math.fround(x[i]! * inverse)) * scale;
      }
    }
  }
  return result;
}

function largestMagnitude(values: Reals, start: number, end: number): number {
  let largest = 0;
  for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}
