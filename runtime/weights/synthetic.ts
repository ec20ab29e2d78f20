/**
 * Weights of any model shape out of seeded random blocks: to measure a device without a checkpoint.
 *
 * Matrices are normal with a deviation of 1 / sqrt(columns), so that every projection of a
 * normalised input has about its size and the residual stream grows like the root of the layers.
 * Elements come out of one block per format, each matrix from its own place on, and repeat every
 * few MiB; scales vary around what the deviation asks for. Gates begin as the published training
 * does: exp(A_log) in [1, 16], softplus(dt_bias) in [0.001, 0.1].
 *
 * Routing: scores are sigmoid of a standard normal, so expert e is among the chosen k of E with
 * probability p when its bias is t - sigmoid(Phi^-1(1 - p)), t the common threshold. Shares p are
 * log-normal, p ~ exp(skew n) with sum k: skew 0 is balanced; at 0.5 the busiest of 256 experts
 * gets about 4 times the median.
 */

import type { Device, ModelShape, TensorSpec, WeightFormat } from "../model/device.ts";
import { type ExpectedWeight, expectedWeights } from "./names.ts";
import { GROUP_COLUMNS } from "./packed.ts";
import { isMatrix, residentFormat, type WeightChoice } from "./resident.ts";

export interface SyntheticOptions {
  readonly seed: number;
  /** Deviation of the logarithm of the experts' shares. */
  readonly skew: number;
}

/** Bytes of a block of elements. */
const BLOCK_BYTES = 4 * 1024 * 1024;
const SCALE_BLOCK = 65_536;
/** Sides of a block of fp8 elements that share a scale. */
const FP8_BLOCK = 128;
/** Deviation of the stored elements: most of each format's range, little of it cut off. */
const ELEMENT_DEVIATION: Partial<Record<WeightFormat, number>> = { q4: 2.7, q8: 40, fp8: 32 };
/** Deviation of the logarithm of scales. */
const SCALE_SPREAD = 0.2;
/** Of logits: a model that is neither sure nor indifferent. */
const HEAD_GAIN = 3;
/** No expert is chosen for more than this share of tokens. */
const MOST_CHOSEN = 0.9;

/** How a synthetic model holds weight `expected`. */
export function syntheticSpec(expected: ExpectedWeight, choice: WeightChoice): TensorSpec {
  const { key, rows, columns, names, widened } = expected;
  let format: WeightFormat = widened ? "f32" : residentFormat(key, "bf16", choice);
  if (choice === "fp8" && isMatrix(key)) format = "fp8";
  const block = { rowsPerScale: FP8_BLOCK, columnsPerScale: FP8_BLOCK };
  const scale = format === "fp8" ? block : null;
  return { key, format, matrices: names.length, rows, columns, scale };
}

/** Declares every weight of a model and fills it. Returns the bytes written. */
export function loadSynthetic(
  shape: ModelShape,
  choice: WeightChoice,
  options: SyntheticOptions,
  device: Pick<Device, "declare" | "write" | "writeScales" | "writeGroupScales">,
): number {
  const specs = expectedWeights(shape).map((expected) => syntheticSpec(expected, choice));
  device.declare(specs);
  const weights = new SyntheticWeights(shape, options);
  let bytes = 0;
  for (const spec of specs) {
    for (let matrix = 0; matrix < spec.matrices; matrix++) {
      let at = 0;
      for (const piece of weights.elements(spec)) {
        device.write(spec.key, matrix, at, piece);
        at += piece.length;
      }
      bytes += at;
      if (spec.format === "fp8") device.writeScales(spec.key, matrix, weights.gridScales(spec));
      if (spec.format !== "q8" && spec.format !== "q4") continue;
      const scales = weights.groupScales(spec);
      device.writeGroupScales(spec.key, matrix, 0, scales);
      bytes += scales.length;
    }
  }
  return bytes;
}

export class SyntheticWeights {
  readonly #next: () => number;
  readonly #normals = new Float32Array(SCALE_BLOCK);
  readonly #blocks = new Map<string, Uint8Array>();

  constructor(private readonly shape: ModelShape, private readonly options: SyntheticOptions) {
    this.#next = randomWords(options.seed);
    for (let i = 0; i < SCALE_BLOCK; i++) {
      this.#normals[i] = Math.sqrt(-2 * Math.log(1 - this.#uniform())) *
        Math.cos(2 * Math.PI * this.#uniform());
    }
  }

  /** The next matrix's elements in order, as devices take them. A piece lives until the next. */
  *elements(spec: TensorSpec): Generator<Uint8Array> {
    const { format, rows, columns } = spec;
    const deviation = ELEMENT_DEVIATION[format] ?? this.#deviation(spec);
    if (format === "f32") {
      yield new Uint8Array(this.#vector(spec).buffer);
      return;
    }
    const grouped = format === "q8" || format === "q4";
    const padded = grouped ? GROUP_COLUMNS * Math.ceil(columns / GROUP_COLUMNS) : columns;
    const block = this.#block(format, deviation);
    if (padded !== columns) {
      yield this.#paddedRows(spec, block);
      return;
    }
    const total = rows * columns * ELEMENT_BITS[format]! / 8;
    let from = this.#place(block.length);
    for (let at = 0; at < total;) {
      const length = Math.min(block.length - from, total - at);
      yield block.subarray(from, from + length);
      at += length;
      from = 0;
    }
  }

  /** f16 scales of the next q8 or q4 matrix, [rows][groups rounded up to an even count]. */
  groupScales(spec: TensorSpec): Uint8Array {
    const stride = 2 * Math.ceil(spec.columns / GROUP_COLUMNS / 2);
    const mean = this.#deviation(spec) / ELEMENT_DEVIATION[spec.format]!;
    const block = this.#scaleBlock(mean);
    const scales = new Uint8Array(2 * spec.rows * stride);
    let from = this.#place(block.length);
    for (let at = 0; at < scales.length;) {
      const length = Math.min(block.length - from, scales.length - at);
      scales.set(block.subarray(from, from + length), at);
      at += length;
      from = 0;
    }
    return scales;
  }

  /** The scale grid of the next fp8 matrix. */
  gridScales(spec: TensorSpec): Float32Array {
    const mean = this.#deviation(spec) / ELEMENT_DEVIATION.fp8!;
    const count = Math.ceil(spec.rows / FP8_BLOCK) * Math.ceil(spec.columns / FP8_BLOCK);
    return Float32Array.from({ length: count }, () => this.#spread(mean));
  }

  /** Deviation of a matrix's values. */
  #deviation({ key, columns }: TensorSpec): number {
    if (key === "embed") return 1;
    return (key === "head" ? HEAD_GAIN : 1) / Math.sqrt(columns);
  }

  #vector({ key, rows, columns }: TensorSpec): Float32Array {
    const length = rows * columns;
    if (key.endsWith(".router_bias")) return this.#routerBias(length);
    const draw = key.endsWith("_conv")
      ? () => 0.5 * this.#normal()
      : key.endsWith(".a_log")
      ? () => Math.log(1 + 15 * this.#uniform())
      : key.endsWith(".dt_bias")
      ? () => Math.log(Math.expm1(10 ** (-3 + 2 * this.#uniform())))
      : () => 1 + 0.1 * this.#normal();
    return Float32Array.from({ length }, draw);
  }

  #routerBias(experts: number): Float32Array {
    const chosen = this.shape.moe.expertsPerToken;
    const shares = Array.from({ length: experts }, () => {
      return Math.exp(this.options.skew * this.#normal());
    });
    const sum = shares.reduce((total, share) => total + share, 0);
    const quantile = (p: number) => sigmoid(normalQuantile(1 - p));
    const most = Math.min(MOST_CHOSEN, chosen / experts < MOST_CHOSEN ? MOST_CHOSEN : 1);
    const threshold = quantile(Math.min(most, chosen / experts));
    return Float32Array.from(
      shares,
      (share) => threshold - quantile(Math.min(most, chosen * share / sum)),
    );
  }

  /** A block of elements, made once. */
  #block(format: WeightFormat, deviation: number): Uint8Array {
    const name = `${format} ${deviation}`;
    const known = this.#blocks.get(name);
    if (known !== undefined) return known;
    const block = new Uint8Array(BLOCK_BYTES);
    const draw = () => deviation * this.#normal();
    if (format === "q4") {
      const nibble = () => clamp(Math.round(draw()), 7) + 8;
      for (let i = 0; i < block.length; i++) block[i] = nibble() | nibble() << 4;
    } else if (format === "q8") {
      for (let i = 0; i < block.length; i++) block[i] = clamp(Math.round(draw()), 127);
    } else if (format === "fp8") {
      for (let i = 0; i < block.length; i++) block[i] = e4m3(draw());
    } else {
      const bits = new Uint32Array(1);
      const value = new Float32Array(bits.buffer);
      const words = new Uint16Array(block.buffer);
      for (let i = 0; i < words.length; i++) {
        value[0] = draw();
        words[i] = bits[0]! >>> 16;
      }
    }
    this.#blocks.set(name, block);
    return block;
  }

  #scaleBlock(mean: number): Uint8Array {
    const name = `scales ${mean}`;
    let block = this.#blocks.get(name);
    if (block === undefined) {
      const view = new DataView(new ArrayBuffer(2 * SCALE_BLOCK));
      for (let i = 0; i < SCALE_BLOCK; i++) view.setFloat16(2 * i, this.#spread(mean), true);
      block = new Uint8Array(view.buffer);
      this.#blocks.set(name, block);
    }
    return block;
  }

  /** Rows of q8 or q4 whose last group is filled up with zeros. */
  #paddedRows({ format, rows, columns }: TensorSpec, block: Uint8Array): Uint8Array {
    const padded = GROUP_COLUMNS * Math.ceil(columns / GROUP_COLUMNS);
    const perByte = format === "q4" ? 2 : 1;
    const zero = format === "q4" ? 8 : 0;
    const bytes = new Uint8Array(rows * padded / perByte);
    for (let i = 0; i < bytes.length; i++) bytes[i] = block[this.#place(block.length)]!;
    for (let row = 0; row < rows; row++) {
      for (let column = columns; column < padded; column++) {
        const at = row * padded + column;
        if (perByte === 1) bytes[at] = zero;
        else {
          const shift = 4 * (at & 1);
          bytes[at >> 1] = bytes[at >> 1]! & ~(15 << shift) | zero << shift;
        }
      }
    }
    return bytes;
  }

  /** Where in a block to begin, whole groups of 32 bytes from its start. */
  #place(blockBytes: number): number {
    return 32 * Math.floor(this.#uniform() * blockBytes / 32);
  }

  #uniform(): number {
    return this.#next() / 2 ** 32;
  }

  #normal(): number {
    return this.#normals[this.#next() >>> 16]!;
  }

  #spread(mean: number): number {
    return mean * Math.exp(SCALE_SPREAD * this.#normal());
  }
}

const ELEMENT_BITS: Partial<Record<WeightFormat, number>> = { bf16: 16, fp8: 8, q8: 8, q4: 4 };

function clamp(value: number, most: number): number {
  return Math.max(-most, Math.min(most, value));
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Phi^-1 by bisection of a sum: it is asked once an expert. */
function normalQuantile(p: number): number {
  let [low, high] = [-8, 8];
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (normalDistribution(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Phi by its Taylor series around 0, Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ...). */
function normalDistribution(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 3; Math.abs(term) > 1e-17 && n < 400; n += 2) sum += term *= x * x / n;
  return 0.5 + sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
}

/** e4m3fn of a value below 240, rounded down in magnitude: random elements need no more. */
function e4m3(value: number): number {
  const magnitude = Math.min(Math.abs(value), 240);
  const sign = value < 0 ? 0x80 : 0;
  if (magnitude < 2 ** -6) return sign | Math.floor(magnitude * 2 ** 9);
  const exponent = Math.floor(Math.log2(magnitude));
  return sign | (exponent + 7) << 3 | Math.floor((magnitude / 2 ** exponent - 1) * 8);
}

/** mulberry32: a number in [0, 2^32) at each call. */
function randomWords(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}
