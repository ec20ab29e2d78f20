/**
 * Names of the weights inside Kedge, and how each is found in a published checkpoint.
 *
 * Keys (L = layer index from 0; [rows, columns]):
 *
 *   embed [vocab, hidden]    head [vocab, hidden]    norm [1, hidden]
 *   L.mixer_norm [1, hidden]           L.ffn_norm [1, hidden]
 *   L.kda.q L.kda.k [H dk, hidden]     L.kda.v [H dv, hidden]
 *   L.kda.q_conv .k_conv .v_conv       [channels, taps], oldest tap first
 *   L.kda.a_log [1, H]                 L.kda.dt_bias [1, H dk]
 *   L.kda.f_a [rank, hidden]           L.kda.f_b [H dk, rank]
 *   L.kda.b [H, hidden]
 *   L.kda.g_a [rank, hidden]           L.kda.g_b [H dv, rank]
 *   L.kda.o_norm [1, dv]               L.kda.o [hidden, H dv]
 *   L.mla.q [N (nope + shared), hidden]   per head: nope rows, then shared-key rows
 *   L.mla.kv_a [latent + shared, hidden]  latent rows, then the shared key's
 *   L.mla.kv_norm [1, latent]
 *   L.mla.kv_b [N (nope + value), latent] per head: key rows, then value rows
 *   L.mla.o [hidden, N value]
 *   L.dense.gate L.dense.up [width, hidden]    L.dense.down [hidden, width]
 *   L.moe.router [experts, hidden]     L.moe.router_bias [1, experts]
 *   L.moe.gate L.moe.up [experts x [width, hidden]]   L.moe.down [experts x [hidden, width]]
 *   L.shared.gate L.shared.up [shared width, hidden]  L.shared.down [hidden, shared width]
 *
 * Always handed over as f32, whatever the file holds (bf16 and f16 widen exactly): norms,
 * convolutions, a_log, dt_bias, router_bias. Every other key keeps the file's format.
 */

import type { ModelShape } from "../model/device.ts";

/** One key and the checkpoint tensors that fill it, one a matrix. */
export interface ExpectedWeight {
  readonly key: string;
  readonly rows: number;
  readonly columns: number;
  /** Names in the checkpoint, in the order of the key's matrices. */
  readonly names: readonly string[];
  /** Shapes in which the file may hold each of them. All have rows x columns elements. */
  readonly shapes: readonly (readonly number[])[];
  /** Whether the key is handed over as f32, whatever the file holds. */
  readonly widened: boolean;
}

/** Every weight of a model, in the order of its layers. */
export function expectedWeights(shape: ModelShape): ExpectedWeight[] {
  const weights: ExpectedWeight[] = [];
  const { hiddenSize, vocabularySize } = shape;
  weights.push(matrix("embed", "model.embed_tokens.weight", vocabularySize, hiddenSize));
  shape.layers.forEach((layer, index) => {
    const prefix = `model.layers.${index}.`;
    weights.push(vector(`${index}.mixer_norm`, `${prefix}input_layernorm.weight`, hiddenSize));
    weights.push(...(layer.mixer === "kda" ? kdaWeights : mlaWeights)(shape, index));
    const ffnNorm = `${prefix}post_attention_layernorm.weight`;
    weights.push(vector(`${index}.ffn_norm`, ffnNorm, hiddenSize));
    weights.push(...(layer.feedForward === "dense" ? denseWeights : moeWeights)(shape, index));
  });
  weights.push(vector("norm", "model.norm.weight", hiddenSize));
  weights.push(matrix("head", "lm_head.weight", vocabularySize, hiddenSize));
  return weights;
}

/** Number of checkpoint tensors that `expectedWeights` would name, scales not counted. */
export function expectedTensorCount(shape: ModelShape): number {
  const shared = shape.moe.sharedIntermediateSize > 0 ? 3 : 0;
  let count = 3;
  for (const layer of shape.layers) {
    count += 2 + (layer.mixer === "kda" ? 15 : 5);
    count += layer.feedForward === "dense" ? 3 : 2 + 3 * shape.moe.expertCount + shared;
  }
  return count;
}

function kdaWeights(shape: ModelShape, layer: number): ExpectedWeight[] {
  const { hiddenSize, kda: { headCount, keyDim, valueDim, convolutionTaps } } = shape;
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  const key = `${layer}.kda.`;
  const file = `model.layers.${layer}.self_attn.`;
  const linear = (part: string, rows: number, columns: number) =>
    matrix(`${key}${part}`, `${file}${part}_proj.weight`, rows, columns);
  const convolution = (part: string, rows: number): ExpectedWeight => ({
    ...matrix(`${key}${part}_conv`, `${file}${part}_conv1d.weight`, rows, convolutionTaps),
    shapes: [[rows, 1, convolutionTaps]],
    widened: true,
  });
  return [
    linear("q", keys, hiddenSize),
    linear("k", keys, hiddenSize),
    linear("v", values, hiddenSize),
    convolution("q", keys),
    convolution("k", keys),
    convolution("v", values),
    // Writers disagree on the shape of A_log.
    {
      ...vector(`${key}a_log`, `${file}A_log`, headCount),
      shapes: [[1, 1, headCount, 1], [headCount]],
    },
    vector(`${key}dt_bias`, `${file}dt_bias`, keys),
    // Both gates' low rank is the head's size.
    linear("f_a", keyDim, hiddenSize),
    linear("f_b", keys, keyDim),
    linear("b", headCount, hiddenSize),
    linear("g_a", valueDim, hiddenSize),
    linear("g_b", values, valueDim),
    vector(`${key}o_norm`, `${file}o_norm.weight`, valueDim),
    linear("o", hiddenSize, values),
  ];
}

function mlaWeights(shape: ModelShape, layer: number): ExpectedWeight[] {
  const { hiddenSize, mla: { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } } = shape;
  const key = `${layer}.mla.`;
  const file = `model.layers.${layer}.self_attn.`;
  const keyRows = headCount * (nopeDim + sharedKeyDim);
  const latentRows = latentDim + sharedKeyDim;
  return [
    matrix(`${key}q`, `${file}q_proj.weight`, keyRows, hiddenSize),
    matrix(`${key}kv_a`, `${file}kv_a_proj_with_mqa.weight`, latentRows, hiddenSize),
    vector(`${key}kv_norm`, `${file}kv_a_layernorm.weight`, latentDim),
    matrix(`${key}kv_b`, `${file}kv_b_proj.weight`, headCount * (nopeDim + valueDim), latentDim),
    matrix(`${key}o`, `${file}o_proj.weight`, hiddenSize, headCount * valueDim),
  ];
}

function denseWeights(shape: ModelShape, layer: number): ExpectedWeight[] {
  const file = `model.layers.${layer}.mlp.`;
  return gatedWeights(`${layer}.dense.`, file, shape.denseIntermediateSize, shape.hiddenSize);
}

function moeWeights(shape: ModelShape, layer: number): ExpectedWeight[] {
  const { hiddenSize, moe } = shape;
  const { expertCount, intermediateSize: width, sharedIntermediateSize } = moe;
  const key = `${layer}.moe.`;
  const file = `model.layers.${layer}.block_sparse_moe.`;
  const experts = (part: string, stored: string, rows: number, columns: number) => ({
    ...matrix(`${key}${part}`, "", rows, columns),
    names: Array.from({ length: expertCount }, (_, e) => `${file}experts.${e}.${stored}.weight`),
  });
  const weights = [
    matrix(`${key}router`, `${file}gate.weight`, expertCount, hiddenSize),
    vector(`${key}router_bias`, `${file}gate.e_score_correction_bias`, expertCount),
    experts("gate", "w1", width, hiddenSize),
    experts("up", "w3", width, hiddenSize),
    experts("down", "w2", hiddenSize, width),
  ];
  if (sharedIntermediateSize > 0) {
    const shared = `${file}shared_experts.`;
    weights.push(...gatedWeights(`${layer}.shared.`, shared, sharedIntermediateSize, hiddenSize));
  }
  return weights;
}

/** gate and up [width, hidden], down [hidden, width]. */
function gatedWeights(key: string, file: string, width: number, hidden: number): ExpectedWeight[] {
  return [
    matrix(`${key}gate`, `${file}gate_proj.weight`, width, hidden),
    matrix(`${key}up`, `${file}up_proj.weight`, width, hidden),
    matrix(`${key}down`, `${file}down_proj.weight`, hidden, width),
  ];
}

function matrix(key: string, name: string, rows: number, columns: number): ExpectedWeight {
  return { key, rows, columns, names: [name], shapes: [[rows, columns]], widened: false };
}

function vector(key: string, name: string, columns: number): ExpectedWeight {
  return { key, rows: 1, columns, names: [name], shapes: [[columns]], widened: true };
}
