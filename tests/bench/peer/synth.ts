/**
 * A GGUF with the shape of any config.json and made-up weights, straight in the wanted types: the
 * random blocks of one pool for each type and width are written again and again from other places,
 * so that the disk sets the pace. The numbers mean nothing; their sizes are a trained model's:
 *
 *   matrices      standard deviation 1 / sqrt(columns), so that unit inputs give unit outputs
 *   router        logits of standard deviation 1 for normalised inputs; biases of `skew`: with 0
 *                 all experts are as likely, with 0.1 the busiest of 256 get several times the mean
 *   norms         1
 *   convolutions  0.1 and less for the older taps, 0.5 to 1 for the current one
 *   ssm_a         -1 to -16, dt_bias the inverse softplus of 0.001 to 0.1, as KDA is initialised
 */
import type { ModelConfig } from "../../../runtime/model/config.ts";
import { encodeElements } from "./blocks.ts";
import { GGML_TYPES, type GgmlType, tensorBytes, writeGguf } from "./gguf.ts";
import {
  joinMetadata,
  modelMetadata,
  type Quantisation,
  type TensorLayout,
  tensorLayouts,
} from "./layout.ts";
import { syntheticVocabulary } from "./vocabulary.ts";

/** Blocks of a pool: a prime, so that no two matrices of a stack begin alike. */
const POOL_BLOCKS = 131_071;
/** Standard deviations of whole numbers drawn evenly from [-8, 8) and [-127, 128). */
const Q4_DEVIATION = 4.61;
const Q8_DEVIATION = 73.6;

export interface SynthOptions {
  readonly quantisation: Quantisation;
  readonly seed: number;
  /** Standard deviation of the router's biases. */
  readonly skew: number;
}

/** Writes the file and returns its size in bytes. */
export function writeSyntheticGguf(
  config: ModelConfig,
  name: string,
  path: string,
  { quantisation, seed, skew }: SynthOptions,
): number {
  const layouts = tensorLayouts(config.shape, quantisation);
  const metadata = joinMetadata(
    modelMetadata(config, name, quantisation),
    syntheticVocabulary(config.shape.vocabularySize, config),
  );
  const random = new Random(seed);
  const pools = new Map<string, Uint8Array>();
  return writeGguf(path, metadata, layouts, (index) => {
    const layout = layouts[index]!;
    if (!isMatrix(layout)) return [new Uint8Array(smallTensor(layout, random, skew).buffer)];
    const columns = layout.dimensions[0]!;
    const poolKey = `${layout.type} ${columns}`;
    const pool = pools.get(poolKey) ?? makePool(layout.type, columns, random);
    pools.set(poolKey, pool);
    return fromPool(pool, GGML_TYPES[layout.type].blockBytes, tensorBytes(layout), random);
  });
}

function isMatrix({ key, type }: TensorLayout): boolean {
  return type !== "F32" || /\.(q|k|v|o|f_a|f_b|b|g_a|g_b|kv_a|kv_b|gate|up|down)$|^embed$|^head$/
    .test(key);
}

/** Bytes of a pool, again and again, from a block of the pool on. */
function* fromPool(
  pool: Uint8Array,
  blockBytes: number,
  bytes: number,
  random: Random,
): Generator<Uint8Array> {
  let at = Math.floor(random.uniform() * (pool.length / blockBytes)) * blockBytes;
  for (let left = bytes; left > 0;) {
    const piece = pool.subarray(at, Math.min(at + left, pool.length));
    yield piece;
    left -= piece.length;
    at = 0;
  }
}

/** Blocks of elements with standard deviation 1 / sqrt(columns); each has a factor of its own. */
function makePool(type: GgmlType, columns: number, random: Random): Uint8Array {
  const { blockBytes, blockElements } = GGML_TYPES[type];
  const deviation = 1 / Math.sqrt(columns);
  const pool = new Uint8Array(POOL_BLOCKS * blockBytes);
  if (blockElements > 1) {
    random.fill(pool);
    const view = new DataView(pool.buffer);
    const levels = type === "Q4_0" ? Q4_DEVIATION : Q8_DEVIATION;
    for (let at = 0; at < pool.length; at += blockBytes) {
      view.setFloat16(at, deviation / levels * (0.75 + 0.5 * random.uniform()), true);
    }
    return pool;
  }
  const values = Float32Array.from({ length: POOL_BLOCKS }, () => random.normal() * deviation);
  return encodeElements(values, type);
}

/** Norms, convolutions, gates and routers, in f32. */
function smallTensor({ key, dimensions }: TensorLayout, random: Random, skew: number) {
  const count = dimensions.reduce((product, size) => product * size, 1);
  const columns = dimensions[0]!;
  const make = (value: (index: number) => number) =>
    Float32Array.from({ length: count }, (_, index) => value(index));
  if (key.endsWith(".router")) return make(() => random.normal() / Math.sqrt(columns));
  if (key.endsWith(".router_bias")) return make(() => random.normal() * skew);
  if (key.endsWith(".a_log")) return make(() => -1 - 15 * random.uniform());
  if (key.endsWith(".dt_bias")) {
    return make(() => Math.log(Math.expm1(0.001 * 100 ** random.uniform())));
  }
  if (key.endsWith("_conv")) {
    return make((index) =>
      index % columns === columns - 1 ? 0.5 + 0.5 * random.uniform() : 0.1 * random.normal()
    );
  }
  return make(() => 1);
}

/** xorshift128 (Marsaglia 2003, "Xorshift RNGs"): whole numbers of 32 bits. */
class Random {
  private readonly state: Uint32Array;

  constructor(seed: number) {
    // Never all zero, and far from it after some rounds.
    this.state = Uint32Array.of(seed, 0x9e3779b9, 0x243f6a88, 0xb7e15162);
    for (let round = 0; round < 32; round++) this.next();
  }

  next(): number {
    const state = this.state;
    const mixed = state[0]! ^ state[0]! << 11;
    state[0] = state[1]!;
    state[1] = state[2]!;
    state[2] = state[3]!;
    state[3] = state[3]! ^ state[3]! >>> 19 ^ mixed ^ mixed >>> 8;
    return state[3]!;
  }

  /** In [0, 1). */
  uniform(): number {
    return this.next() / 2 ** 32;
  }

  /** Mean 0, variance 1 (Box and Muller 1958). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  fill(bytes: Uint8Array<ArrayBuffer>): void {
    const words = new Uint32Array(bytes.buffer, 0, bytes.length >>> 2);
    for (let i = 0; i < words.length; i++) words[i] = this.next();
    for (let i = words.length * 4; i < bytes.length; i++) bytes[i] = this.next();
  }
}
