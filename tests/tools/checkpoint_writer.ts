/**
 * Writes small Kimi-Linear model folders with random weights. It knows the published names and
 * shapes by itself and shares nothing with the loader, so that each checks the other.
 */

/** A draft's tensor; `bytes` in the file's own format, little-endian. */
export interface DraftTensor {
  name: string;
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
  /** Which shard holds it, from 0. */
  shard: number;
}

/** All of a folder before it becomes bytes. Tests change it at will. */
export interface Draft {
  // deno-lint-ignore no-explicit-any
  config: Record<string, any>;
  // deno-lint-ignore no-explicit-any
  tokenizerConfig: Record<string, any>;
  // deno-lint-ignore no-explicit-any
  generationConfig: Record<string, any>;
  tiktoken: string;
  tensors: DraftTensor[];
  shards: number;
}

export type DraftFormat =
  | ("BF16" | "F16" | "F32")
  | ("fp8-block" | "fp8-row" | "fp8-tensor")
  | ("int4" | "int8");

/** Columns of most matrices in whole groups of 32, of an odd number in some. */
export const GROUPED_SIZES = { hidden_size: 96, intermediate_size: 64, moe_intermediate_size: 32 };

export interface DraftOptions {
  readonly format?: DraftFormat;
  readonly shards?: number;
  readonly seed?: number;
  readonly config?: Record<string, unknown>;
}

/** mulberry32: a number in [0, 2^32) at each call. */
export function randomIntegers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** Four layers, every kind among them; sizes all different where they may be. */
export function smallConfig(): Record<string, unknown> {
  return {
    architectures: ["KimiLinearForCausalLM"],
    model_type: "kimi_linear",
    dtype: "bfloat16",
    vocab_size: 280,
    hidden_size: 20,
    intermediate_size: 28,
    moe_intermediate_size: 12,
    num_hidden_layers: 4,
    num_attention_heads: 3,
    num_key_value_heads: 3,
    q_lora_rank: null,
    kv_lora_rank: 10,
    qk_nope_head_dim: 6,
    qk_rope_head_dim: 4,
    v_head_dim: 5,
    mla_use_nope: true,
    num_experts: 4,
    num_experts_per_token: 2,
    num_shared_experts: 2,
    first_k_dense_replace: 1,
    moe_layer_freq: 1,
    moe_renormalize: true,
    moe_router_activation_func: "sigmoid",
    routed_scaling_factor: 1.5,
    use_grouped_topk: true,
    num_expert_group: 1,
    topk_group: 1,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    model_max_length: 64,
    bos_token_id: 256,
    eos_token_id: 258,
    pad_token_id: 279,
    linear_attn_config: {
      kda_layers: [1, 3],
      full_attn_layers: [2, 4],
      head_dim: 8,
      num_heads: 2,
      short_conv_kernel_size: 4,
    },
  };
}

/** A valid folder: a byte-level tokenizer and random weights. */
export function draftModel(options: DraftOptions = {}): Draft {
  const config: Draft["config"] = { ...smallConfig(), ...options.config };
  const format = options.format ?? "BF16";
  if (format === "fp8-block") {
    config.quantization_config = { quant_method: "fp8", weight_block_size: [8, 16] };
  }
  if (format === "int4" || format === "int8") {
    const bits = format === "int4" ? 4 : 8;
    const weights = { type: "int", num_bits: bits, strategy: "group", group_size: 32 };
    config.quantization_config = {
      quant_method: "compressed-tensors",
      format: bits === 4 ? "pack-quantized" : "int-quantized",
      config_groups: { group_0: { weights: { ...weights, symmetric: true } } },
    };
  }
  const builder = new TensorBuilder(format, randomIntegers(options.seed ?? 1));
  addTensors(builder, config);
  const shards = options.shards ?? 1;
  builder.tensors.forEach((tensor, index) => tensor.shard = index % shards);
  const names = ["[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>"];
  return {
    config,
    tokenizerConfig: {
      added_tokens_decoder: Object.fromEntries(
        names.map((content, i) => [String(256 + i), { content, special: true }]),
      ),
    },
    generationConfig: { eos_token_id: [258, 257], temperature: 0.7, top_p: 0.9 },
    tiktoken: Array.from(
      { length: 256 },
      (_, byte) => `${btoa(String.fromCharCode(byte))} ${byte}\n`,
    ).join(""),
    tensors: builder.tensors,
    shards,
  };
}

class TensorBuilder {
  readonly tensors: DraftTensor[] = [];
  constructor(readonly format: DraftFormat, readonly next: () => number) {}

  add(name: string, dtype: string, shape: number[]): void {
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = new Uint8Array(count * elementBytes(dtype));
    const view = new DataView(bytes.buffer);
    const scratch = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < count; i++) {
      const value = this.next() / 2 ** 32 * 4 - 2;
      scratch.setFloat32(0, value);
      if (dtype === "F32") view.setFloat32(4 * i, value, true);
      else if (dtype === "F16") view.setFloat16(2 * i, value, true);
      else if (dtype === "BF16") view.setUint16(2 * i, scratch.getUint16(0), true);
      else bytes[i] = this.next() % 126;
    }
    this.tensors.push({ name, dtype, shape, bytes, shard: 0 });
  }

  /** Norms, biases and the like, never quantised. */
  plain(name: string, shape: number[], dtype?: string): void {
    this.add(name, dtype ?? (/^(fp8|int)/.test(this.format) ? "BF16" : this.format), shape);
  }

  raw(name: string, dtype: string, shape: number[], bytes: Uint8Array): void {
    this.tensors.push({ name, dtype, shape, bytes, shard: 0 });
  }

  /** Integers in groups of 32 columns. */
  integers(weight: string, rows: number, columns: number): void {
    const random = (length: number) => Uint8Array.from({ length }, () => this.next());
    if (this.format === "int8") {
      const bytes = random(rows * columns).map((byte) => byte === 128 ? 127 : byte);
      this.raw(weight, "I8", [rows, columns], bytes);
    } else {
      this.raw(`${weight}_packed`, "I32", [rows, columns / 8], random(rows * columns / 2));
      const shape = new BigInt64Array([BigInt(rows), BigInt(columns)]);
      this.raw(`${weight}_shape`, "I64", [2], new Uint8Array(shape.buffer));
    }
    this.add(`${weight}_scale`, "BF16", [rows, columns / 32]);
  }

  linear(name: string, rows: number, columns: number): void {
    const weight = `${name}.weight`;
    if (this.format.startsWith("int")) {
      return columns % 32 === 0
        ? this.integers(weight, rows, columns)
        : this.add(weight, "BF16", [rows, columns]);
    }
    if (!this.format.startsWith("fp8")) return this.add(weight, this.format, [rows, columns]);
    this.add(weight, "F8_E4M3", [rows, columns]);
    if (this.format === "fp8-block") {
      this.add(`${weight}_scale_inv`, "F32", [Math.ceil(rows / 8), Math.ceil(columns / 16)]);
    } else if (this.format === "fp8-row") this.add(`${weight}_scale`, "BF16", [rows, 1]);
    else this.add(`${weight}_scale`, "F16", [1]);
  }
}

export function elementBytes(dtype: string): number {
  if (dtype.endsWith("64")) return 8;
  if (dtype.endsWith("32")) return 4;
  return dtype.endsWith("16") ? 2 : 1;
}

function addTensors(to: TensorBuilder, config: Draft["config"]): void {
  const { hidden_size: hidden, vocab_size: vocabulary } = config;
  to.plain("model.embed_tokens.weight", [vocabulary, hidden]);
  to.plain("model.norm.weight", [hidden]);
  to.plain("lm_head.weight", [vocabulary, hidden]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    to.plain(`${prefix}.input_layernorm.weight`, [hidden]);
    to.plain(`${prefix}.post_attention_layernorm.weight`, [hidden]);
    const isKda = config.linear_attn_config.kda_layers.includes(layer + 1);
    (isKda ? addKda : addMla)(to, `${prefix}.self_attn`, config);
    const isMoe = layer >= config.first_k_dense_replace && layer % config.moe_layer_freq === 0;
    if (isMoe) addMoe(to, `${prefix}.block_sparse_moe`, config);
    else addGated(to, `${prefix}.mlp`, config.intermediate_size, hidden);
  }
}

function addKda(to: TensorBuilder, prefix: string, config: Draft["config"]): void {
  const hidden = config.hidden_size;
  const { num_heads: heads, head_dim: size, short_conv_kernel_size: taps } =
    config.linear_attn_config;
  const width = heads * size;
  for (const part of ["q", "k", "v"]) {
    to.linear(`${prefix}.${part}_proj`, width, hidden);
    to.plain(`${prefix}.${part}_conv1d.weight`, [width, 1, taps]);
  }
  to.plain(`${prefix}.A_log`, [1, 1, heads, 1], "F32");
  to.plain(`${prefix}.dt_bias`, [width], "F32");
  for (const gate of ["f", "g"]) {
    to.linear(`${prefix}.${gate}_a_proj`, size, hidden);
    to.linear(`${prefix}.${gate}_b_proj`, width, size);
  }
  to.linear(`${prefix}.b_proj`, heads, hidden);
  to.plain(`${prefix}.o_norm.weight`, [size]);
  to.linear(`${prefix}.o_proj`, hidden, width);
}

function addMla(to: TensorBuilder, prefix: string, config: Draft["config"]): void {
  const { hidden_size: hidden, num_attention_heads: heads, kv_lora_rank: latent } = config;
  const { qk_nope_head_dim: nope, qk_rope_head_dim: shared, v_head_dim: value } = config;
  to.linear(`${prefix}.q_proj`, heads * (nope + shared), hidden);
  to.linear(`${prefix}.kv_a_proj_with_mqa`, latent + shared, hidden);
  to.plain(`${prefix}.kv_a_layernorm.weight`, [latent]);
  to.linear(`${prefix}.kv_b_proj`, heads * (nope + value), latent);
  to.linear(`${prefix}.o_proj`, hidden, heads * value);
}

function addMoe(to: TensorBuilder, prefix: string, config: Draft["config"]): void {
  const { hidden_size: hidden, moe_intermediate_size: width, num_experts: experts } = config;
  to.plain(`${prefix}.gate.weight`, [experts, hidden]);
  to.plain(`${prefix}.gate.e_score_correction_bias`, [experts]);
  for (let expert = 0; expert < experts; expert++) {
    to.linear(`${prefix}.experts.${expert}.w1`, width, hidden);
    to.linear(`${prefix}.experts.${expert}.w3`, width, hidden);
    to.linear(`${prefix}.experts.${expert}.w2`, hidden, width);
  }
  const shared = config.num_shared_experts * width;
  if (shared > 0) addGated(to, `${prefix}.shared_experts`, shared, hidden);
}

function addGated(to: TensorBuilder, prefix: string, width: number, hidden: number): void {
  to.linear(`${prefix}.gate_proj`, width, hidden);
  to.linear(`${prefix}.up_proj`, width, hidden);
  to.linear(`${prefix}.down_proj`, hidden, width);
}

/** Header JSON and data of one safetensors file. */
export function encodeSafetensors(
  tensors: readonly { name: string; dtype: string; shape: number[]; bytes: Uint8Array }[],
): Uint8Array {
  const entries: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    entries[name] = { dtype, shape, data_offsets: [end, end += bytes.length] };
  }
  return joinSafetensors(JSON.stringify(entries), tensors.map(({ bytes }) => bytes));
}

/** A file with a header of any text. */
export function joinSafetensors(header: string, data: readonly Uint8Array[]): Uint8Array {
  const text = new TextEncoder().encode(header);
  const size = data.reduce((sum, bytes) => sum + bytes.length, 8 + text.length);
  const file = new Uint8Array(size);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const bytes of data) {
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}

export function shardName(shard: number, shards: number): string {
  const digits = (n: number) => String(n).padStart(5, "0");
  return `model-${digits(shard + 1)}-of-${digits(shards)}.safetensors`;
}

/** The folder's files by name. */
export function encodeDraft(draft: Draft): Map<string, Uint8Array> {
  const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value, null, 2));
  const files = new Map<string, Uint8Array>([
    ["config.json", text(draft.config)],
    ["tokenizer_config.json", text(draft.tokenizerConfig)],
    ["generation_config.json", text(draft.generationConfig)],
    ["tiktoken.model", new TextEncoder().encode(draft.tiktoken)],
  ]);
  if (draft.shards === 1) {
    files.set("model.safetensors", encodeSafetensors(draft.tensors));
    return files;
  }
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < draft.shards; shard++) {
    const tensors = draft.tensors.filter((tensor) => tensor.shard === shard);
    for (const { name } of tensors) weightMap[name] = shardName(shard, draft.shards);
    files.set(shardName(shard, draft.shards), encodeSafetensors(tensors));
  }
  files.set("model.safetensors.index.json", text({ metadata: {}, weight_map: weightMap }));
  return files;
}

export function writeFiles(directory: string, files: ReadonlyMap<string, Uint8Array>): void {
  Deno.mkdirSync(directory, { recursive: true });
  for (const [name, bytes] of files) Deno.writeFileSync(`${directory}/${name}`, bytes);
}
