import assert from "node:assert/strict";
import { parseModelConfig } from "../../runtime/model/config.ts";
import { expectedTensorCount, expectedWeights } from "../../runtime/weights/names.ts";
import { smallConfig } from "../tools/checkpoint_writer.ts";

/** The published 48B model's config.json, with the keys that matter here. */
function publishedConfig(): Record<string, unknown> {
  const fullAttention = [4, 8, 12, 16, 20, 24, 27];
  return {
    ...smallConfig(),
    vocab_size: 163840,
    hidden_size: 2304,
    head_dim: 72,
    intermediate_size: 9216,
    moe_intermediate_size: 1024,
    num_hidden_layers: 27,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    kv_lora_rank: 512,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
    num_experts: 256,
    num_experts_per_token: 8,
    num_shared_experts: 1,
    routed_scaling_factor: 2.446,
    rope_scaling: null,
    num_nextn_predict_layers: 0,
    model_max_length: 1048576,
    bos_token_id: 163584,
    eos_token_id: 163586,
    pad_token_id: 163839,
    linear_attn_config: {
      kda_layers: Array.from({ length: 27 }, (_, i) => i + 1)
        .filter((layer) => !fullAttention.includes(layer)),
      full_attn_layers: fullAttention,
      num_heads: 32,
      head_dim: 128,
      short_conv_kernel_size: 4,
    },
  };
}

Deno.test("config.json: every value lands where the shape says", () => {
  const config = parseModelConfig(smallConfig(), "config.json");
  assert.deepEqual(config, {
    shape: {
      vocabularySize: 280,
      hiddenSize: 20,
      layers: [
        { mixer: "kda", feedForward: "dense" },
        { mixer: "mla", feedForward: "moe" },
        { mixer: "kda", feedForward: "moe" },
        { mixer: "mla", feedForward: "moe" },
      ],
      normEpsilon: 1e-5,
      latentNormEpsilon: 1e-6,
      kda: { headCount: 2, keyDim: 8, valueDim: 8, convolutionTaps: 4 },
      mla: { headCount: 3, latentDim: 10, nopeDim: 6, sharedKeyDim: 4, valueDim: 5 },
      denseIntermediateSize: 28,
      moe: {
        expertCount: 4,
        expertsPerToken: 2,
        intermediateSize: 12,
        sharedIntermediateSize: 24,
        routedScale: 1.5,
        renormalize: true,
      },
    },
    contextLength: 64,
    bosId: 256,
    eosId: 258,
    padId: 279,
    scaleBlock: { rows: 128, columns: 128 },
  });
});

Deno.test("the published 48B config: tensors and parameters as counted elsewhere", () => {
  const { shape } = parseModelConfig(publishedConfig(), "config.json");
  assert.deepEqual(
    shape.layers.flatMap(({ mixer }, i) => mixer === "mla" ? [i] : []),
    [3, 7, 11, 15, 19, 23, 26],
  );
  assert.equal(shape.layers.filter(({ feedForward }) => feedForward === "dense").length, 1);
  const weights = expectedWeights(shape);
  const names = weights.flatMap(({ names }) => names);
  assert.equal(names.length, 20_493);
  assert.equal(new Set(names).size, 20_493);
  assert.equal(expectedTensorCount(shape), 20_493);
  const parameters = weights.reduce((sum, w) => sum + w.names.length * w.rows * w.columns, 0);
  assert.equal(parameters, 49_122_681_728);
});

Deno.test("expectedTensorCount counts what expectedWeights names", () => {
  for (
    const change of [
      {},
      { num_shared_experts: 0 },
      { first_k_dense_replace: 4 },
      { moe_layer_freq: 2, num_experts: 7 },
    ]
  ) {
    const { shape } = parseModelConfig({ ...smallConfig(), ...change }, "config.json");
    const named = expectedWeights(shape).reduce((sum, { names }) => sum + names.length, 0);
    assert.equal(expectedTensorCount(shape), named);
  }
});

Deno.test("layers are MoE from first_k_dense_replace on, where moe_layer_freq divides", () => {
  const json = { ...smallConfig(), first_k_dense_replace: 1, moe_layer_freq: 2 };
  const { shape } = parseModelConfig(json, "config.json");
  const kinds = shape.layers.map(({ feedForward }) => feedForward);
  assert.deepEqual(kinds, ["dense", "dense", "moe", "dense"]);
});

Deno.test("a model may have one kind of mixer only", () => {
  const json = smallConfig();
  const linear = json.linear_attn_config as Record<string, unknown>;
  json.linear_attn_config = { ...linear, kda_layers: [], full_attn_layers: [4, 3, 2, 1] };
  const { shape } = parseModelConfig(json, "config.json");
  assert.ok(shape.layers.every(({ mixer }) => mixer === "mla"));
});

const QUANTIZATIONS: [string, unknown, { rows: number; columns: number }][] = [
  ["none", null, { rows: 128, columns: 128 }],
  ["fp8", { quant_method: "fp8", fmt: "e4m3" }, { rows: 128, columns: 128 }],
  ["fp8 blocks", { quant_method: "fp8", weight_block_size: [64, 32] }, { rows: 64, columns: 32 }],
  ["compressed-tensors", {
    quant_method: "compressed-tensors",
    format: "float-quantized",
    config_groups: {
      group_0: {
        targets: ["Linear"],
        weights: { type: "float", num_bits: 8, strategy: "channel" },
      },
    },
    ignore: ["lm_head"],
  }, { rows: 128, columns: 128 }],
];
for (const [label, quantization_config, scaleBlock] of QUANTIZATIONS) {
  Deno.test(`quantization_config: ${label}`, () => {
    const config = parseModelConfig({ ...smallConfig(), quantization_config }, "config.json");
    assert.deepEqual(config.scaleBlock, scaleBlock);
  });
}

Deno.test("a value that is no object is refused by the file's name", () => {
  for (const value of [null, [], 3, "x"]) {
    assert.throws(() => parseModelConfig(value, "c.json"), /^ModelError: read "c\.json": wanted a/);
  }
});
