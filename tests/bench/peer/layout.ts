/**
 * Which tensors and keys llama.cpp's architecture `kimi-linear` wants of a model, and from which of
 * Kedge's weights (runtime/weights/names.ts) each is made
 * (ggml-org/llama.cpp v0.5.0, src/models/kimi-linear.cpp and conversion/kimi_linear.py).
 */
import type { ModelConfig } from "../../../runtime/model/config.ts";
import type { ModelShape } from "../../../runtime/model/device.ts";
import { GGML_TYPES, type GgmlType, type GgufMetadata, type GgufTensor } from "./gguf.ts";
import { type GgufValue } from "./gguf.ts";

/** What the large matrices are stored as. */
export type Quantisation = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0";
export const QUANTISATIONS = ["F32", "F16", "BF16", "Q8_0", "Q4_0"] as const;

/** llama.cpp's `general.file_type`. */
const FILE_TYPES = { F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2 } as const;
const SIGMOID_GATING = 2;

/**
 * How a weight becomes a tensor: as it is; a_log as -exp(a_log); of kv_b [heads (nope + value),
 * latent] each head's key rows transposed, or its value rows.
 */
export type Transform = "same" | "negative exp" | "keys transposed" | "values";

export interface TensorLayout extends GgufTensor {
  /** Of Kedge's weight. */
  readonly key: string;
  readonly transform: Transform;
}

/**
 * Every tensor of the file in order. Throws for shapes that llama.cpp can't hold: it has one number
 * of heads for both mixers, and its dense layers come first.
 */
export function tensorLayouts(shape: ModelShape, quantisation: Quantisation): TensorLayout[] {
  checkShape(shape);
  const { hiddenSize, vocabularySize } = shape;
  const add = new LayoutList(quantisation);
  add.matrix("token_embd.weight", "embed", [hiddenSize, vocabularySize]);
  shape.layers.forEach((layer, index) => {
    const block = `blk.${index}.`;
    add.exact(`${block}attn_norm.weight`, `${index}.mixer_norm`, [hiddenSize]);
    (layer.mixer === "kda" ? addKda : addMla)(add, shape, index);
    add.exact(`${block}ffn_norm.weight`, `${index}.ffn_norm`, [hiddenSize]);
    if (layer.feedForward === "moe") addMoe(add, shape, index);
    else addGated(add, index, "dense", "", [hiddenSize, shape.denseIntermediateSize]);
  });
  add.exact("output_norm.weight", "norm", [hiddenSize]);
  add.matrix("output.weight", "head", [hiddenSize, vocabularySize]);
  return add.layouts;
}

function checkShape(shape: ModelShape): void {
  const { kda, mla, layers } = shape;
  if (kda.headCount !== mla.headCount) {
    const found = `${kda.headCount} KDA and ${mla.headCount} MLA heads`;
    throw new Error(`lay out a GGUF: wanted one number of heads, found ${found}`);
  }
  const dense = layers.findLastIndex((layer) => layer.feedForward === "dense") + 1;
  if (dense !== layers.filter((layer) => layer.feedForward === "dense").length) {
    throw new Error("lay out a GGUF: wanted the dense layers first, found experts before them");
  }
}

/** Weights that stay at 8 bits where the rest have 4: few bytes, and much depends on them. */
const EIGHT_BITS = /^(embed|head)$|\.kda\.(f_a|f_b|b)$/;

class LayoutList {
  readonly layouts: TensorLayout[] = [];
  constructor(private readonly quantisation: Quantisation) {}

  /** A tensor in f32: llama.cpp computes with norms, convolutions and routers as such. */
  exact(
    name: string,
    key: string,
    dimensions: readonly number[],
    transform: Transform = "same",
  ): void {
    this.layouts.push({ name, key, dimensions, type: "F32", transform });
  }

  matrix(
    name: string,
    key: string,
    dimensions: readonly number[],
    transform: Transform = "same",
  ): void {
    const wanted = this.quantisation === "Q4_0" && EIGHT_BITS.test(key)
      ? "Q8_0"
      : this.quantisation;
    const fits = dimensions[0]! % GGML_TYPES[wanted].blockElements === 0;
    const type: GgmlType = fits ? wanted : "F16";
    this.layouts.push({ name, key, dimensions, type, transform });
  }
}

function addKda(add: LayoutList, shape: ModelShape, layer: number): void {
  const { hiddenSize, kda: { headCount, keyDim, valueDim, convolutionTaps } } = shape;
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  const block = `blk.${layer}.`;
  const key = `${layer}.kda.`;
  for (const [part, width] of [["q", keys], ["k", keys], ["v", values]] as const) {
    add.matrix(`${block}attn_${part}.weight`, key + part, [hiddenSize, width]);
    const taps = [convolutionTaps, 1, width, 1];
    add.exact(`${block}ssm_conv1d_${part}.weight`, `${key}${part}_conv`, taps);
  }
  add.matrix(`${block}ssm_f_a.weight`, `${key}f_a`, [hiddenSize, keyDim]);
  add.matrix(`${block}ssm_f_b.weight`, `${key}f_b`, [keyDim, keys]);
  add.matrix(`${block}ssm_beta.weight`, `${key}b`, [hiddenSize, headCount]);
  add.exact(`${block}ssm_a`, `${key}a_log`, [1, headCount, 1, 1], "negative exp");
  add.exact(`${block}ssm_dt.bias`, `${key}dt_bias`, [keys]);
  add.matrix(`${block}ssm_g_a.weight`, `${key}g_a`, [hiddenSize, valueDim]);
  add.matrix(`${block}ssm_g_b.weight`, `${key}g_b`, [valueDim, values]);
  add.exact(`${block}ssm_norm.weight`, `${key}o_norm`, [valueDim]);
  add.matrix(`${block}attn_output.weight`, `${key}o`, [values, hiddenSize]);
}

function addMla(add: LayoutList, shape: ModelShape, layer: number): void {
  const { hiddenSize, mla: { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } } = shape;
  const block = `blk.${layer}.`;
  const key = `${layer}.mla.`;
  const queries = headCount * (nopeDim + sharedKeyDim);
  add.matrix(`${block}attn_q.weight`, `${key}q`, [hiddenSize, queries]);
  const latents = [hiddenSize, latentDim + sharedKeyDim];
  add.matrix(`${block}attn_kv_a_mqa.weight`, `${key}kv_a`, latents);
  add.exact(`${block}attn_kv_a_norm.weight`, `${key}kv_norm`, [latentDim]);
  const kv = `${key}kv_b`;
  add.matrix(`${block}attn_k_b.weight`, kv, [nopeDim, latentDim, headCount], "keys transposed");
  add.matrix(`${block}attn_v_b.weight`, kv, [latentDim, valueDim, headCount], "values");
  add.matrix(`${block}attn_output.weight`, `${key}o`, [headCount * valueDim, hiddenSize]);
}

function addMoe(add: LayoutList, shape: ModelShape, layer: number): void {
  const { hiddenSize, moe } = shape;
  const { expertCount, intermediateSize, sharedIntermediateSize } = moe;
  const block = `blk.${layer}.`;
  add.exact(`${block}ffn_gate_inp.weight`, `${layer}.moe.router`, [hiddenSize, expertCount]);
  add.exact(`${block}exp_probs_b.bias`, `${layer}.moe.router_bias`, [expertCount]);
  addGated(add, layer, "moe", "_exps", [hiddenSize, intermediateSize, expertCount]);
  if (sharedIntermediateSize > 0) {
    addGated(add, layer, "shared", "_shexp", [hiddenSize, sharedIntermediateSize]);
  }
}

/** `sizes`: hidden, width, and the number of experts where there are several. */
function addGated(
  add: LayoutList,
  layer: number,
  part: string,
  suffix: string,
  [hidden, width, ...experts]: [number, number, ...number[]],
): void {
  const name = (matrix: string) => `blk.${layer}.ffn_${matrix}${suffix}.weight`;
  add.matrix(name("gate"), `${layer}.${part}.gate`, [hidden, width, ...experts]);
  add.matrix(name("up"), `${layer}.${part}.up`, [hidden, width, ...experts]);
  add.matrix(name("down"), `${layer}.${part}.down`, [width, hidden, ...experts]);
}

/** The header's keys but those of the tokenizer. */
export function modelMetadata(
  { shape, contextLength }: Pick<ModelConfig, "shape" | "contextLength">,
  name: string,
  quantisation: Quantisation,
): Map<string, GgufValue> {
  const { kda, mla, moe, layers } = shape;
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: "kimi-linear" }],
    ["general.name", { type: "string", value: name }],
    ["general.file_type", { type: "u32", value: FILE_TYPES[quantisation] }],
    ["general.quantization_version", { type: "u32", value: 2 }],
  ]);
  const u32 = (key: string, value: number) =>
    metadata.set(`kimi-linear.${key}`, { type: "u32", value });
  const f32 = (key: string, value: number) =>
    metadata.set(`kimi-linear.${key}`, { type: "f32", value });
  u32("vocab_size", shape.vocabularySize);
  u32("context_length", contextLength);
  u32("embedding_length", shape.hiddenSize);
  u32("block_count", layers.length);
  u32("feed_forward_length", shape.denseIntermediateSize);
  f32("attention.layer_norm_rms_epsilon", shape.normEpsilon);
  u32("attention.head_count", mla.headCount);
  // One latent for all heads; 0 marks a KDA layer.
  const latents = layers.map((layer) => layer.mixer === "mla" ? 1 : 0);
  metadata.set("kimi-linear.attention.head_count_kv", { type: "i32s", value: latents });
  u32("attention.kv_lora_rank", mla.latentDim);
  u32("attention.key_length", mla.latentDim + mla.sharedKeyDim);
  u32("attention.key_length_mla", mla.nopeDim + mla.sharedKeyDim);
  u32("attention.value_length_mla", mla.valueDim);
  u32("rope.dimension_count", mla.sharedKeyDim);
  u32("ssm.conv_kernel", kda.convolutionTaps);
  u32("kda.head_dim", kda.keyDim);
  u32("expert_count", moe.expertCount);
  u32("expert_used_count", moe.expertsPerToken);
  u32("expert_feed_forward_length", moe.intermediateSize);
  u32("expert_shared_count", moe.sharedIntermediateSize / moe.intermediateSize);
  u32("leading_dense_block_count", layers.filter((l) => l.feedForward === "dense").length);
  f32("expert_weights_scale", moe.routedScale);
  metadata.set("kimi-linear.expert_weights_norm", { type: "bool", value: moe.renormalize });
  u32("expert_gating_func", SIGMOID_GATING);
  return metadata;
}

/** All keys of a file. */
export function joinMetadata(...parts: readonly GgufMetadata[]): GgufMetadata {
  return new Map(parts.flatMap((part) => [...part]));
}
