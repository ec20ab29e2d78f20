/** Models without files for `kedge bench`, and the two that are compared with each other. */
import { UsageError } from "../errors.ts";
import { MAX_CONFIG_FILE_BYTES, SYNTH_SKEW_DEFAULT } from "../limits.ts";
import { parseJson } from "../json_text.ts";
import { parseModelConfig } from "../model/config.ts";
import type { ModelShape } from "../model/device.ts";
import { expectedWeights } from "../weights/names.ts";
import type { WeightChoice } from "../weights/resident.ts";
import { loadSynthetic, syntheticSpec } from "../weights/synthetic.ts";
import type { BenchModel } from "./bench_device.ts";

const SEED = 1;

/** Configurations by name. */
const SHAPES: Readonly<Record<string, string>> = {
  "48b": new URL("../../models/kimi-linear-48b/config.json", import.meta.url).pathname,
};

/** Bytes of the config.json that `name` stands for: a known shape or a path. Throws UsageError. */
export function readShapeConfig(flag: string, name: string): Uint8Array {
  const path = decodeURIComponent(SHAPES[name.toLowerCase()] ?? name);
  const known = `${Object.keys(SHAPES).join(", ")} or the path of a config.json`;
  try {
    const { size } = Deno.statSync(path);
    if (size > MAX_CONFIG_FILE_BYTES) {
      throw new UsageError(`read ${flag}: wanted ${known}, found a file of ${size} bytes`);
    }
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`read ${flag} "${name}": wanted ${known}, found none`);
  }
}

/** The model's shape. Throws UsageError or ModelError. */
export function readShape(flag: string, name: string): ModelShape {
  return parseModelConfig(parseJson(readShapeConfig(flag, name), `read "${name}"`), name).shape;
}

/** A model of random weights that are written straight to the device. */
export function syntheticModel(shape: ModelShape, weights: WeightChoice): BenchModel {
  const specs = expectedWeights(shape).map((expected) => syntheticSpec(expected, weights));
  return {
    shape,
    specs,
    load: (device) =>
      Promise.resolve(
        loadSynthetic(shape, weights, { seed: SEED, skew: SYNTH_SKEW_DEFAULT }, device),
      ),
  };
}

/** The same model with every mixer MLA. */
export function fullAttention(shape: ModelShape): ModelShape {
  return { ...shape, layers: shape.layers.map((layer) => ({ ...layer, mixer: "mla" })) };
}
