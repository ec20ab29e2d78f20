/** Broken config.json files. */

import { broken, type BrokenModel } from "./broken_model.ts";

/** One key of config.json set to a value, or removed. `linear.` is the nested object. */
function config(key: string, value: unknown, found: string, wanted = ""): BrokenModel {
  const shown = value === undefined ? "missing" : JSON.stringify(value);
  const path = key.replace("linear.", "linear_attn_config.");
  const pattern = `^read "${path}" in "config\\.json": wanted .*${wanted}.*, found ${found}$`;
  return broken(`config ${key} ${shown}`, new RegExp(pattern), {
    draft: ({ config }) => {
      const target = key.startsWith("linear.") ? config.linear_attn_config : config;
      const name = key.replace("linear.", "");
      if (value === undefined) delete target[name];
      else target[name] = value;
    },
  });
}

const REQUIRED = [
  "model_type",
  "architectures",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "moe_intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "kv_lora_rank",
  "qk_nope_head_dim",
  "qk_rope_head_dim",
  "v_head_dim",
  "mla_use_nope",
  "num_experts",
  "num_experts_per_token",
  "num_shared_experts",
  "first_k_dense_replace",
  "moe_layer_freq",
  "moe_renormalize",
  "moe_router_activation_func",
  "routed_scaling_factor",
  "num_expert_group",
  "topk_group",
  "hidden_act",
  "rms_norm_eps",
  "tie_word_embeddings",
  "model_max_length",
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
  "linear_attn_config",
  "linear.kda_layers",
  "linear.full_attn_layers",
  "linear.head_dim",
  "linear.num_heads",
  "linear.short_conv_kernel_size",
];

const TOTAL_WIDTH =
  /^read "num_attention_heads" in "config\.json": wanted a total width .*, found 4096 x /;

export const BROKEN_CONFIGS: readonly BrokenModel[] = [
  ...REQUIRED.map((key) => config(key, undefined, "none")),
  config("model_type", "kimi_k3", '"kimi_k3"', "kimi_linear"),
  config("architectures", ["LlamaForCausalLM"], '\\["LlamaForCausalLM"\\]', "KimiLinear"),
  config("num_nextn_predict_layers", 1, "1", "multi-token prediction"),
  config("mla_use_nope", false, "false", "true"),
  config("q_lora_rank", 1536, "1536", "low-rank queries"),
  config("hidden_act", "gelu", '"gelu"', '"silu"'),
  config("moe_router_activation_func", "softmax", '"softmax"', '"sigmoid"'),
  config("tie_word_embeddings", true, "true", "false"),
  config("rope_scaling", { type: "yarn" }, "an object", "rotary"),
  config("num_expert_group", 8, "8", "1"),
  config("topk_group", 4, "4", "1"),
  config("gate_lower_bound", -5, "-5", "bounded decay gate"),
  config("linear.gate_lower_bound", -5, "-5", "bounded decay gate"),
  config("use_full_rank_gate", true, "true", "full-rank"),
  config("mla_use_output_gate", true, "true", "output gate"),
  config("num_key_value_heads", 1, "1", "3"),
  config("hidden_size", 20.5, "20\\.5", "integer"),
  config("hidden_size", "20", '"20"', "integer"),
  config("hidden_size", 0, "0", "from 1"),
  config("hidden_size", -20, "-20", "from 1"),
  config("hidden_size", 1e15, "1000000000000000", "from 1"),
  config("num_experts_per_token", 5, "5", "from 1 to 4"),
  config("first_k_dense_replace", 5, "5", "from 0 to 4"),
  config("moe_layer_freq", 0, "0", "from 1"),
  config("rms_norm_eps", 0, "0", "above 0"),
  config("moe_renormalize", 1, "1", "true or false"),
  config("eos_token_id", 280, "280", "from 0 to 279"),
  config("model_max_length", 2 ** 40, "1099511627776", "from 1"),
  config("linear.kda_layers", [0, 2], "0", "1-based"),
  config("linear.kda_layers", [1, 1, 3], "1 twice", "once"),
  config("linear.full_attn_layers", [1, 2, 4], "1 twice", "once"),
  config("linear.kda_layers", [1], "3 in neither", "every layer"),
  config("linear.kda_layers", [1, 5], "5", "from 1 to 4"),
  config("linear.kda_layers", "1,3", '"1,3"', "array"),
  config("linear_attn_config", [], "\\[\\]", "an object"),
  broken("config heads x size", TOTAL_WIDTH, {
    // Both in bounds, but not their product.
    draft: ({ config }) => {
      config.num_attention_heads = config.num_key_value_heads = 4096;
      config.v_head_dim = 8192;
    },
  }),
];

/** config.json's quantisation. */
function quantized(name: string, value: unknown, key: string, found: string): BrokenModel {
  const pattern =
    `^read "quantization_config${key}" in "config\\.json": wanted .*, found ${found}$`;
  return broken(`quantization ${name}`, new RegExp(pattern), {
    draft: ({ config }) => config.quantization_config = value,
  });
}

const packed = (change: Record<string, unknown>) => ({
  quant_method: "compressed-tensors",
  format: "float-quantized",
  config_groups: { group_0: { weights: { type: "float", num_bits: 8, ...change } } },
});
const integers = (change: Record<string, unknown>) => {
  const weights = { type: "int", num_bits: 8, strategy: "group", group_size: 32, ...change };
  return {
    quant_method: "compressed-tensors",
    format: "int-quantized",
    config_groups: { group_0: { weights } },
  };
};
const GROUP = "\\.config_groups\\.group_0\\.weights";

export const BROKEN_QUANTIZATIONS: readonly BrokenModel[] = [
  quantized("gptq", { quant_method: "gptq" }, "\\.quant_method", '"gptq"'),
  quantized("without method", {}, "\\.quant_method", "none"),
  quantized("e5m2", { quant_method: "fp8", fmt: "e5m2" }, "\\.fmt", '"e5m2"'),
  quantized(
    "block of one side",
    { quant_method: "fp8", weight_block_size: [128] },
    "\\.weight_block_size",
    "\\[128\\]",
  ),
  quantized(
    "pack-quantized",
    { ...packed({}), format: "pack-quantized" },
    `${GROUP}\\.type`,
    '"float"',
  ),
  quantized("nvfp4", { ...packed({}), format: "nvfp4-pack-quantized" }, "\\.format", '"nvfp4.*"'),
  quantized("int8 with 4 bits", integers({ num_bits: 4 }), `${GROUP}\\.num_bits`, "4"),
  quantized("groups of 128", integers({ group_size: 128 }), `${GROUP}\\.group_size`, "128"),
  quantized("asymmetric", integers({ symmetric: false }), `${GROUP}\\.symmetric`, "false"),
  quantized("int4", packed({ type: "int", num_bits: 4 }), `${GROUP}\\.type`, '"int"'),
  quantized("float4", packed({ num_bits: 4 }), `${GROUP}\\.num_bits`, "4"),
  quantized("group strategy", packed({ strategy: "group" }), `${GROUP}\\.strategy`, '"group"'),
  quantized("a text", "fp8", "", '"fp8"'),
];
