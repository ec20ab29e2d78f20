/**
 * A GGUF with the shape of any config.json and made-up weights, straight in the wanted types. What
 * is in f32, bf16 and f16 comes from Kedge's own synthetic weights (runtime/weights/synthetic.ts:
 * gates, norms and the skew of the routers). Q8_0 and Q4_0 blocks have those weights' deviations,
 * from one pool of random blocks for each type and deviation, which is written again and again from
 * other places, so that the disk sets the pace.
 */
import type { ModelConfig } from "../../../runtime/model/config.ts";
import type { ModelShape } from "../../../runtime/model/device.ts";
import { type ExpectedWeight, expectedWeights } from "../../../runtime/weights/names.ts";
import { SyntheticWeights } from "../../../runtime/weights/synthetic.ts";
import { widen } from "../../../runtime/weights/widen.ts";
import { randomSource } from "../../reference/random.ts";
import { encodeElements } from "./blocks.ts";
import { transformed } from "./convert.ts";
import { GGML_TYPES, tensorBytes, writeGguf } from "./gguf.ts";
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
/** Standard deviations of whole numbers drawn evenly from [-8, 8) and [-128, 128). */
const LEVEL_DEVIATIONS = { Q4_0: 4.61, Q8_0: 73.9 } as const;
/** Logits of a model that is neither sure nor indifferent, as in Kedge's synthetic weights. */
const HEAD_GAIN = 3;

type BlockType = keyof typeof LEVEL_DEVIATIONS;

export interface SynthOptions {
  readonly quantisation: Quantisation;
  readonly seed: number;
  /** Deviation of the logarithm of the experts' shares. */
  readonly skew: number;
}

/** Writes the file and returns its size in bytes. */
export function writeSyntheticGguf(
  config: ModelConfig,
  name: string,
  path: string,
  { quantisation, seed, skew }: SynthOptions,
): number {
  const { shape } = config;
  const layouts = tensorLayouts(shape, quantisation);
  const metadata = joinMetadata(
    modelMetadata(config, name, quantisation),
    syntheticVocabulary(shape.vocabularySize, config),
  );
  const expected = new Map(expectedWeights(shape).map((weight) => [weight.key, weight]));
  const floats = new SyntheticWeights(shape, { seed, skew });
  const pools = new BlockPools(seed);
  return writeGguf(path, metadata, layouts, (index) => {
    const layout = layouts[index]!;
    const weight = expected.get(layout.key)!;
    if (layout.type !== "Q4_0" && layout.type !== "Q8_0") {
      return floatMatrices(floats, layout, weight, shape);
    }
    return pools.blocks(layout.type, deviationOf(weight), tensorBytes(layout));
  });
}

function deviationOf({ key, columns }: ExpectedWeight): number {
  if (key === "embed") return 1;
  return (key === "head" ? HEAD_GAIN : 1) / Math.sqrt(columns);
}

/** One matrix after the other, in the layout's type. */
function* floatMatrices(
  floats: SyntheticWeights,
  { transform, type }: TensorLayout,
  { key, rows, columns, names, widened }: ExpectedWeight,
  { mla }: ModelShape,
): Generator<Uint8Array> {
  const format = widened ? "f32" : "bf16";
  const spec = { key, format, matrices: names.length, rows, columns, scale: null } as const;
  for (let matrix = 0; matrix < names.length; matrix++) {
    const bytes = new Uint8Array(rows * columns * (widened ? 4 : 2));
    let at = 0;
    for (const piece of floats.elements(spec)) {
      bytes.set(piece, at);
      at += piece.length;
    }
    const values = widen(bytes, widened ? "F32" : "BF16");
    yield encodeElements(transformed(values, transform, mla), type);
  }
}

class BlockPools {
  private readonly pools = new Map<string, Uint8Array>();
  /** In [0, 1). */
  private readonly random: () => number;

  constructor(seed: number) {
    this.random = randomSource(seed);
  }

  /** Bytes of a pool, again and again, from a block of it on. */
  *blocks(type: BlockType, deviation: number, bytes: number): Generator<Uint8Array> {
    const { blockBytes } = GGML_TYPES[type];
    const pool = this.pool(type, deviation);
    let at = Math.floor(this.random() * POOL_BLOCKS) * blockBytes;
    for (let left = bytes; left > 0;) {
      const piece = pool.subarray(at, Math.min(at + left, pool.length));
      yield piece;
      left -= piece.length;
      at = 0;
    }
  }

  /** Levels are drawn evenly; each block has a factor of its own. */
  private pool(type: BlockType, deviation: number): Uint8Array {
    const name = `${type} ${deviation}`;
    const known = this.pools.get(name);
    if (known !== undefined) return known;
    const { blockBytes } = GGML_TYPES[type];
    const pool = new Uint8Array(POOL_BLOCKS * blockBytes);
    for (let i = 0; i < pool.length; i++) pool[i] = 256 * this.random();
    const view = new DataView(pool.buffer);
    const mean = deviation / LEVEL_DEVIATIONS[type];
    for (let at = 0; at < pool.length; at += blockBytes) {
      view.setFloat16(at, mean * (0.75 + 0.5 * this.random()), true);
    }
    this.pools.set(name, pool);
    return pool;
  }
}
