/**
 * config.json of a Kimi-Linear checkpoint. Strict: a missing key is an error and never a default,
 * because the published class's defaults describe another model, and everything that this program
 * doesn't compute is refused by name.
 */

import {
  MAX_CONTEXT_TOKENS,
  MAX_CONVOLUTION_TAPS,
  MAX_EXPERTS,
  MAX_HEAD_CHANNELS,
  MAX_HEADS,
  MAX_LAYERS,
  MAX_VOCABULARY_TOKENS,
  MAX_WIDTH_CHANNELS,
  MIN_SCALE_BLOCK_ELEMENTS,
} from "../limits.ts";
import { isObject } from "../json_text.ts";
import { quote, refuse, show } from "../wording.ts";
import type { KdaShape, LayerShape, MlaShape, ModelShape, MoeShape } from "./device.ts";

export interface ModelConfig {
  readonly shape: ModelShape;
  /** Most tokens of prompt and completion together. */
  readonly contextLength: number;
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  /** Elements that one scale of a `weight_scale_inv` covers. */
  readonly scaleBlock: { readonly rows: number; readonly columns: number };
}

/** The reference keeps its norm over the MLA latent at this, whatever rms_norm_eps says. */
const LATENT_NORM_EPSILON = 1e-6;
/** DeepSeek's block, which checkpoints without `weight_block_size` use. */
const DEFAULT_SCALE_BLOCK = { rows: 128, columns: 128 };

/** Keys that must be there with the only value this program computes. */
const FIXED = {
  model_type: "kimi_linear",
  hidden_act: "silu",
  moe_router_activation_func: "sigmoid",
  mla_use_nope: true,
  tie_word_embeddings: false,
  num_expert_group: 1,
  topk_group: 1,
} as const;

/** Keys of relatives and successors: they may be absent, null, false or 0, since that is what the
 * published model means by leaving them out. */
const UNSUPPORTED = {
  q_lora_rank: "low-rank queries",
  rope_scaling: "rotary positions",
  num_nextn_predict_layers: "multi-token prediction",
  text_config: "a nested configuration",
  gate_lower_bound: "a bounded decay gate",
  use_full_rank_gate: "a full-rank output gate",
  mla_use_output_gate: "an output gate of MLA",
  attn_res_block_size: "attention residuals",
  routed_expert_hidden_size: "latent experts",
};
const UNSUPPORTED_LINEAR = {
  gate_lower_bound: UNSUPPORTED.gate_lower_bound,
  use_full_rank_gate: UNSUPPORTED.use_full_rank_gate,
};

/** Checks config.json, already parsed. `file` is its name for messages. Throws ModelError. */
export function parseModelConfig(json: unknown, file: string): ModelConfig {
  if (!isObject(json)) return refuse(`read ${quote(file)}`, "a JSON object", show(json));
  const keys = new Keys(json, file, "");
  checkArchitecture(keys);
  const shape = readShape(keys);
  const lastId = shape.vocabularySize - 1;
  return {
    shape,
    contextLength: keys.integer("model_max_length", 1, MAX_CONTEXT_TOKENS),
    bosId: keys.integer("bos_token_id", 0, lastId),
    eosId: keys.integer("eos_token_id", 0, lastId),
    padId: keys.integer("pad_token_id", 0, lastId),
    scaleBlock: readScaleBlock(keys),
  };
}

/** Typed access to one object of config.json. */
class Keys {
  constructor(
    private readonly json: Record<string, unknown>,
    private readonly file: string,
    private readonly prefix: string,
  ) {}

  get(key: string): unknown {
    return Object.hasOwn(this.json, key) ? this.json[key] : undefined;
  }

  fail(key: string, wanted: string, found = show(this.get(key))): never {
    return refuse(`read "${this.prefix}${key}" in ${quote(this.file)}`, wanted, found);
  }

  integer(key: string, least: number, most: number): number {
    const value = this.get(key);
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
      return this.fail(key, `an integer from ${least} to ${most}`);
    }
    return value as number;
  }

  /** A finite number greater than 0 and at most `most`. */
  positive(key: string, most: number): number {
    const value = this.get(key);
    if (typeof value !== "number" || !(value > 0 && value <= most)) {
      return this.fail(key, `a number above 0, at most ${most}`);
    }
    return value;
  }

  boolean(key: string): boolean {
    const value = this.get(key);
    if (typeof value !== "boolean") return this.fail(key, "true or false");
    return value;
  }

  object(key: string): Keys {
    const value = this.get(key);
    if (!isObject(value)) return this.fail(key, "an object");
    return new Keys(value, this.file, `${this.prefix}${key}.`);
  }

  fixed(key: string, wanted: unknown): void {
    if (this.get(key) !== wanted) this.fail(key, show(wanted));
  }

  absent(key: string, feature: string): void {
    const value = this.get(key);
    if (value !== undefined && value !== null && value !== false && value !== 0) {
      this.fail(key, `none (${feature}: not supported)`);
    }
  }
}

function checkArchitecture(keys: Keys): void {
  keys.fixed("model_type", FIXED.model_type);
  const architectures = keys.get("architectures");
  if (
    !Array.isArray(architectures) || architectures.length !== 1 ||
    architectures[0] !== "KimiLinearForCausalLM"
  ) keys.fail("architectures", `["KimiLinearForCausalLM"]`);
  for (const [key, value] of Object.entries(FIXED)) keys.fixed(key, value);
  for (const [key, feature] of Object.entries(UNSUPPORTED)) keys.absent(key, feature);
}

function readShape(keys: Keys): ModelShape {
  const linear = keys.object("linear_attn_config");
  for (const [key, feature] of Object.entries(UNSUPPORTED_LINEAR)) linear.absent(key, feature);
  return {
    vocabularySize: keys.integer("vocab_size", 1, MAX_VOCABULARY_TOKENS),
    hiddenSize: keys.integer("hidden_size", 1, MAX_WIDTH_CHANNELS),
    layers: readLayers(keys, linear),
    normEpsilon: keys.positive("rms_norm_eps", 1),
    latentNormEpsilon: LATENT_NORM_EPSILON,
    kda: readKda(linear),
    mla: readMla(keys),
    denseIntermediateSize: keys.integer("intermediate_size", 1, MAX_WIDTH_CHANNELS),
    moe: readMoe(keys),
  };
}

/** The two lists are 1-based; together they name each layer once. */
function readLayers(keys: Keys, linear: Keys): LayerShape[] {
  const count = keys.integer("num_hidden_layers", 1, MAX_LAYERS);
  const denseCount = keys.integer("first_k_dense_replace", 0, count);
  const moeEvery = keys.integer("moe_layer_freq", 1, MAX_LAYERS);
  const mixers = new Array<"kda" | "mla" | undefined>(count).fill(undefined);
  for (const [key, mixer] of [["kda_layers", "kda"], ["full_attn_layers", "mla"]] as const) {
    const list = linear.get(key);
    if (!Array.isArray(list)) return linear.fail(key, "an array of layer numbers");
    for (const layer of list) {
      if (layer === 0) return linear.fail(key, `1-based layer numbers, 1 to ${count}`, "0");
      if (!Number.isSafeInteger(layer) || layer < 1 || layer > count) {
        return linear.fail(key, `layer numbers from 1 to ${count}`, show(layer));
      }
      if (mixers[layer - 1] !== undefined) {
        return linear.fail(key, "each layer once in the two lists", `${layer} twice`);
      }
      mixers[layer - 1] = mixer;
    }
  }
  return mixers.map((mixer, index) => {
    if (mixer === undefined) {
      const wanted = `every layer from 1 to ${count} in kda_layers or full_attn_layers`;
      return linear.fail("kda_layers", wanted, `${index + 1} in neither`);
    }
    const moe = index >= denseCount && index % moeEvery === 0;
    return { mixer, feedForward: moe ? "moe" : "dense" };
  });
}

function readKda(linear: Keys): KdaShape {
  const headCount = linear.integer("num_heads", 1, MAX_HEADS);
  const headDim = linear.integer("head_dim", 1, MAX_HEAD_CHANNELS);
  checkWidth(linear, "num_heads", headCount, headDim);
  return {
    headCount,
    keyDim: headDim,
    valueDim: headDim,
    convolutionTaps: linear.integer("short_conv_kernel_size", 1, MAX_CONVOLUTION_TAPS),
  };
}

function readMla(keys: Keys): MlaShape {
  const headCount = keys.integer("num_attention_heads", 1, MAX_HEADS);
  keys.fixed("num_key_value_heads", headCount);
  const mla = {
    headCount,
    latentDim: keys.integer("kv_lora_rank", 1, MAX_HEAD_CHANNELS),
    nopeDim: keys.integer("qk_nope_head_dim", 1, MAX_HEAD_CHANNELS),
    sharedKeyDim: keys.integer("qk_rope_head_dim", 1, MAX_HEAD_CHANNELS),
    valueDim: keys.integer("v_head_dim", 1, MAX_HEAD_CHANNELS),
  };
  const headRows = mla.nopeDim + Math.max(mla.sharedKeyDim, mla.valueDim);
  checkWidth(keys, "num_attention_heads", headCount, headRows);
  return mla;
}

function readMoe(keys: Keys): MoeShape {
  const expertCount = keys.integer("num_experts", 1, MAX_EXPERTS);
  const intermediateSize = keys.integer("moe_intermediate_size", 1, MAX_WIDTH_CHANNELS);
  const sharedCount = keys.integer("num_shared_experts", 0, MAX_EXPERTS);
  checkWidth(keys, "num_shared_experts", sharedCount, intermediateSize);
  return {
    expertCount,
    expertsPerToken: keys.integer("num_experts_per_token", 1, expertCount),
    intermediateSize,
    sharedIntermediateSize: sharedCount * intermediateSize,
    routedScale: keys.positive("routed_scaling_factor", 1e4),
    renormalize: keys.boolean("moe_renormalize"),
  };
}

/** Bounds a product of two sizes that each are in bounds. */
function checkWidth(keys: Keys, key: string, count: number, width: number): void {
  if (count * width <= MAX_WIDTH_CHANNELS) return;
  const most = `a total width of at most ${MAX_WIDTH_CHANNELS}`;
  keys.fail(key, most, `${count} x ${width} = ${count * width}`);
}

/**
 * The formats this program reads. Which tensors are quantised is never taken from here: the names
 * and types in the checkpoint's files say that.
 */
function readScaleBlock(keys: Keys): ModelConfig["scaleBlock"] {
  if (keys.get("quantization_config") === undefined || keys.get("quantization_config") === null) {
    return DEFAULT_SCALE_BLOCK;
  }
  const quantization = keys.object("quantization_config");
  const method = quantization.get("quant_method");
  if (method === "compressed-tensors") {
    checkCompressedTensors(quantization);
    return DEFAULT_SCALE_BLOCK;
  }
  if (method !== "fp8") return quantization.fail("quant_method", `"fp8" or "compressed-tensors"`);
  const element = quantization.get("fmt");
  if (element !== undefined) quantization.fixed("fmt", "e4m3");
  const block = quantization.get("weight_block_size");
  if (block === undefined || block === null) return DEFAULT_SCALE_BLOCK;
  const least = MIN_SCALE_BLOCK_ELEMENTS;
  const good = (side: unknown) =>
    Number.isSafeInteger(side) && (side as number) >= least &&
    (side as number) <= MAX_WIDTH_CHANNELS;
  if (!Array.isArray(block) || block.length !== 2 || !block.every(good)) {
    const wanted = `two integers from ${least} to ${MAX_WIDTH_CHANNELS}`;
    return quantization.fail("weight_block_size", wanted);
  }
  return { rows: block[0], columns: block[1] };
}

/** Formats of compressed-tensors, and what their groups' weights must be. */
const COMPRESSED = {
  "float-quantized": { type: "float", num_bits: 8 },
  "pack-quantized": { type: "int", num_bits: 4, strategy: "group", group_size: 32 },
  "int-quantized": { type: "int", num_bits: 8, strategy: "group", group_size: 32 },
} as const;

/**
 * 8-bit floats with one scale a row or a tensor; 4 or 8-bit integers with one a 32 columns; or
 * groups of several formats, each of which names its own.
 */
function checkCompressedTensors(quantization: Keys): void {
  const mixed = quantization.get("format") === "mixed-precision";
  if (!mixed) checkCompressedFormat(quantization);
  const groups = quantization.get("config_groups");
  if (!isObject(groups)) return quantization.fail("config_groups", "an object");
  const all = quantization.object("config_groups");
  for (const name of Object.keys(groups)) {
    const group = all.object(name);
    const wanted = COMPRESSED[checkCompressedFormat(mixed ? group : quantization)];
    const weights = group.object("weights");
    for (const [key, value] of Object.entries(wanted)) weights.fixed(key, value);
    if (wanted.type === "int") weights.fixed("symmetric", true);
    const strategy = weights.get("strategy");
    if (wanted.type === "float" && strategy !== "channel" && strategy !== "tensor") {
      weights.fail("strategy", `"channel" or "tensor"`);
    }
  }
}

function checkCompressedFormat(keys: Keys): keyof typeof COMPRESSED {
  const format = keys.get("format");
  if (typeof format === "string" && Object.hasOwn(COMPRESSED, format)) {
    return format as keyof typeof COMPRESSED;
  }
  return keys.fail("format", `one of ${Object.keys(COMPRESSED).map(quote).join(" ")}`);
}
