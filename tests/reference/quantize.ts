/**
 * Rounding of weights to q8 and q4 as the loader does it, step by step in f32: the WASM module has
 * to give the same bits.
 */
import { decodeF16, encodeF16, GROUP, type GroupedMatrix, type Reals } from "./formats.ts";

const f32 = Math.fround;

/** Multiples of a group's step at which q4 tries to put its largest element. */
const EXTREMES = [-8.8, -8.2, -7.6, -7].map(f32);

/** One group of 32: integers and f16 bits of their scale. */
interface Group {
  readonly q: readonly number[];
  readonly bits: number;
}

/** Values must be finite and far from f16's limits. */
export function roundToGroups(
  values: Reals,
  rows: number,
  columns: number,
  format: "q8" | "q4",
): GroupedMatrix {
  const groups = Math.ceil(columns / GROUP);
  const stride = 2 * Math.ceil(groups / 2);
  const bytes = new Uint8Array(rows * groups * GROUP / (format === "q4" ? 2 : 1));
  const scales = new Uint16Array(rows * stride);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const at = row * columns + group * GROUP;
      const end = Math.min(at + GROUP, (row + 1) * columns);
      const padded = Array.from({ length: GROUP }, (_, i) => at + i < end ? values[at + i]! : 0);
      const { q, bits } = format === "q8" ? roundQ8(padded) : roundQ4(padded);
      scales[row * stride + group] = bits;
      const target = (row * groups + group) * GROUP;
      q.forEach((value, i) => {
        if (format === "q8") bytes[target + i] = value;
        else bytes[(target + i) >> 1]! |= (value + 8) << (4 * (i & 1));
      });
    }
  }
  return { format, rows, columns, bytes, scales };
}

function roundQ8(values: readonly number[]): Group {
  const bits = encodeF16(f32(Math.max(...values.map(Math.abs)) / 127));
  if (bits === 0) return { q: values.map(() => 0), bits };
  const inverse = f32(1 / decodeF16(bits));
  return { q: values.map((v) => clamp(roundHalfEven(f32(v * inverse)), -127, 127)), bits };
}

function roundQ4(values: readonly number[]): Group {
  const largest = Math.max(...values.map(Math.abs));
  if (largest < 2 ** -20) return { q: values.map(() => 0), bits: 0 };
  const extreme = values.includes(largest) ? largest : -largest;
  const unit = f32(1 / extreme);
  let best = values;
  let [bestProduct, bestSquare] = [0, 1];
  for (const target of EXTREMES) {
    const inverse = f32(target * unit);
    const q = values.map((v) => clamp(roundHalfEven(f32(v * inverse)), -8, 7));
    const product = laneSum(values.map((v, i) => f32(v * q[i]!)));
    const square = laneSum(q.map((v) => v * v));
    const score = f32(f32(product * product) * bestSquare);
    if (score <= f32(f32(bestProduct * bestProduct) * square)) continue;
    [best, bestProduct, bestSquare] = [q, product, square];
  }
  return { q: best, bits: encodeF16(f32(bestProduct / bestSquare)) };
}

/** Four lanes first, then pairs of them. */
function laneSum(terms: readonly number[]): number {
  const lanes = [0, 0, 0, 0];
  terms.forEach((term, i) => lanes[i % 4] = f32(lanes[i % 4]! + term));
  return f32(f32(lanes[0]! + lanes[1]!) + f32(lanes[2]! + lanes[3]!));
}

function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, value));
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
