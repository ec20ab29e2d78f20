/** Bytes of the GGUF writer, read again by a reader that shares nothing with it. */
import assert from "node:assert/strict";
import { startEngine } from "../../../runtime/engine/start.ts";
import { GREEDY_SAMPLING } from "../../../runtime/engine/sampling.ts";
import { parseModelConfig } from "../../../runtime/model/config.ts";
import { decodeBf16, decodeE4m3, decodeF16 } from "../../reference/formats.ts";
import {
  type Draft,
  type DraftFormat,
  draftModel,
  encodeDraft,
  writeFiles,
} from "../../tools/checkpoint_writer.ts";
import { TINY_DIRECTORY, tinyTokenizer } from "../../tools/tiny_text.ts";
import { convertCheckpoint } from "./convert.ts";
import type { Quantisation } from "./layout.ts";
import { withEqualHeads } from "./pad_heads.ts";
import { writeSyntheticGguf } from "./synth.ts";
import { readGguf } from "./gguf_reader.ts";

const EQUAL_HEADS = {
  hidden_size: 64,
  intermediate_size: 96,
  moe_intermediate_size: 32,
  kv_lora_rank: 32,
  v_head_dim: 32,
  num_attention_heads: 2,
  num_key_value_heads: 2,
};

/** Exact values of a draft's tensor: stored elements times their scales. */
function exactValues(draft: Draft, name: string): number[] {
  const find = (wanted: string) => draft.tensors.find((tensor) => tensor.name === wanted);
  const tensor = find(name);
  assert.ok(tensor, name);
  const view = new DataView(tensor.bytes.buffer);
  const read = (dtype: string, bytes: DataView, i: number) => {
    if (dtype === "F32") return bytes.getFloat32(4 * i, true);
    if (dtype === "F16") return decodeF16(bytes.getUint16(2 * i, true));
    if (dtype === "BF16") return decodeBf16(bytes.getUint16(2 * i, true));
    return decodeE4m3(bytes.getUint8(i));
  };
  const count = tensor.shape.reduce((a, b) => a * b, 1);
  const block = find(`${name}_scale_inv`);
  const scale = block ?? find(`${name}_scale`);
  const columns = tensor.shape.at(-1)!;
  const scaleAt = (i: number): number => {
    if (scale === undefined) return 1;
    const [row, column] = [Math.floor(i / columns), i % columns];
    let at = scale.shape.length === 1 ? 0 : row;
    if (block) at = Math.floor(row / 8) * Math.ceil(columns / 16) + Math.floor(column / 16);
    return read(scale.dtype, new DataView(scale.bytes.buffer), at);
  };
  return Array.from({ length: count }, (_, i) => read(tensor.dtype, view, i) * scaleAt(i));
}

/** What a tensor of the file must hold, from the published names and llama.cpp's conversion. */
function wantedValues(draft: Draft, name: string): number[] {
  const top: Record<string, string> = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
  };
  if (name in top) return exactValues(draft, top[name]!);
  const [, layer, part] = /^blk\.(\d+)\.(.*?)(\.weight|\.bias)?$/.exec(name)!;
  const from = (rest: string) => exactValues(draft, `model.layers.${layer}.${rest}`);
  const mixer = (rest: string) => from(`self_attn.${rest}.weight`);
  const gated = /^ffn_(gate|up|down)(_exps|_shexp)?$/.exec(part!);
  if (gated) {
    const [, matrix, kind] = gated;
    if (kind === undefined) return from(`mlp.${matrix}_proj.weight`);
    if (kind === "_shexp") return from(`block_sparse_moe.shared_experts.${matrix}_proj.weight`);
    const stored = { gate: "w1", up: "w3", down: "w2" }[matrix!];
    return Array.from(
      { length: draft.config.num_experts },
      (_, expert) => from(`block_sparse_moe.experts.${expert}.${stored}.weight`),
    ).flat();
  }
  const simple: Record<string, () => number[]> = {
    attn_norm: () => from("input_layernorm.weight"),
    ffn_norm: () => from("post_attention_layernorm.weight"),
    attn_output: () => mixer("o_proj"),
    ssm_beta: () => mixer("b_proj"),
    ssm_norm: () => mixer("o_norm"),
    ssm_a: () => from("self_attn.A_log").map((value) => -Math.exp(value)),
    ssm_dt: () => from("self_attn.dt_bias"),
    attn_kv_a_mqa: () => mixer("kv_a_proj_with_mqa"),
    attn_kv_a_norm: () => mixer("kv_a_layernorm"),
    attn_k_b: () => splitLatent(draft, mixer("kv_b_proj")).keys,
    attn_v_b: () => splitLatent(draft, mixer("kv_b_proj")).values,
    ffn_gate_inp: () => from("block_sparse_moe.gate.weight"),
    exp_probs_b: () => from("block_sparse_moe.gate.e_score_correction_bias"),
  };
  if (part! in simple) return simple[part!]!();
  const convolution = /^ssm_conv1d_(.)$/.exec(part!);
  if (convolution) return mixer(`${convolution[1]}_conv1d`);
  return mixer(part!.replace(/^(attn|ssm)_/, "") + "_proj");
}

/** kv_b by head: keys as [latent, nope], values as they are. */
function splitLatent({ config }: Draft, kv: number[]) {
  const { kv_lora_rank: latent, qk_nope_head_dim: nope, v_head_dim: value } = config;
  const at = (head: number, row: number, column: number) =>
    kv[(head * (nope + value) + row) * latent + column]!;
  const keys: number[] = [];
  const values: number[] = [];
  for (let head = 0; head < config.num_attention_heads; head++) {
    for (let column = 0; column < latent; column++) {
      for (let row = 0; row < nope; row++) keys.push(at(head, row, column));
    }
    for (let row = nope; row < nope + value; row++) {
      for (let column = 0; column < latent; column++) values.push(at(head, row, column));
    }
  }
  return { keys, values };
}

/** Largest error of an element, for the largest of its 32 and its own size. */
function allowedError(type: string, largest: number, value: number): number {
  const half = (bits: number) => Math.abs(value) * 2 ** -bits;
  switch (type) {
    case "F32":
      return half(24) + 1e-38;
    case "F16":
      return half(11) + 2 ** -25;
    case "BF16":
      return half(8);
    case "Q8_0":
      // Half a level, and the factor's own rounding to f16.
      return largest / 127 * (0.5 + 127 * 2 ** -11 + 1e-6) + 2 ** -24;
    default:
      // Half a level; a whole one at the end that has no 16th level.
      return largest / 8 * (1 + 8 * 2 ** -11 + 1e-6) + 2 ** -24;
  }
}

function checkTensor(type: string, found: readonly number[], wanted: readonly number[]): void {
  assert.equal(found.length, wanted.length);
  for (let from = 0; from < wanted.length; from += 32) {
    const block = wanted.slice(from, from + 32);
    const largest = Math.max(...block.map(Math.abs));
    block.forEach((value, i) => {
      const error = Math.abs(found[from + i]! - value);
      assert.ok(
        error <= allowedError(type, largest, value),
        `element ${from + i}: wanted ${value}, found ${found[from + i]}`,
      );
    });
  }
}

const CASES: readonly [DraftFormat, Quantisation][] = [
  ["BF16", "F32"],
  ["F16", "F16"],
  ["F32", "BF16"],
  ["fp8-block", "Q8_0"],
  ["fp8-row", "Q4_0"],
  ["fp8-tensor", "F32"],
];

for (const [format, quantisation] of CASES) {
  Deno.test(`convertCheckpoint() keeps every value of ${format} in ${quantisation}`, async () => {
    const directory = Deno.makeTempDirSync();
    try {
      const draft = draftModel({ format, shards: 2, config: EQUAL_HEADS });
      writeFiles(directory, encodeDraft(draft));
      const path = `${directory}/model.gguf`;
      const bytes = await convertCheckpoint(directory, path, quantisation);
      assert.equal(Deno.statSync(path).size, bytes);
      const { tensors } = readGguf(path);
      const names = draft.tensors.filter(({ name }) => !name.includes("_scale")).length;
      const experts = draft.config.num_experts;
      const moeLayers = draft.config.num_hidden_layers - draft.config.first_k_dense_replace;
      const mlaLayers = draft.config.linear_attn_config.full_attn_layers.length;
      assert.equal(tensors.size, names - moeLayers * 3 * (experts - 1) + mlaLayers);
      for (const [name, { type, values }] of tensors) {
        checkTensor(type, values(), wantedValues(draft, name));
      }
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  });
}

Deno.test("convertCheckpoint() writes what llama.cpp asks of the header", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    writeFiles(directory, encodeDraft(draftModel({ config: EQUAL_HEADS })));
    await convertCheckpoint(directory, `${directory}/model.gguf`, "Q4_0");
    const { metadata, tensors } = readGguf(`${directory}/model.gguf`);
    const value = (key: string) => metadata.get(`kimi-linear.${key}`);
    assert.equal(metadata.get("general.architecture"), "kimi-linear");
    assert.deepEqual(value("attention.head_count_kv"), [0, 1, 0, 1]);
    assert.equal(value("attention.head_count"), 2);
    assert.equal(value("attention.key_length"), 32 + 4);
    assert.equal(value("attention.key_length_mla"), 6 + 4);
    assert.equal(value("attention.value_length_mla"), 32);
    assert.equal(value("expert_shared_count"), 2);
    assert.equal(value("leading_dense_block_count"), 1);
    assert.equal(value("expert_weights_norm"), true);
    assert.equal(value("expert_weights_scale"), 1.5);
    const shape = (name: string) => [tensors.get(name)!.type, ...tensors.get(name)!.dimensions];
    assert.deepEqual(shape("blk.0.ssm_conv1d_q.weight"), ["F32", 4, 1, 16, 1]);
    assert.deepEqual(shape("blk.0.ssm_a"), ["F32", 1, 2, 1, 1]);
    assert.deepEqual(shape("blk.1.attn_k_b.weight"), ["F16", 6, 32, 2]);
    assert.deepEqual(shape("blk.1.attn_v_b.weight"), ["Q4_0", 32, 32, 2]);
    assert.deepEqual(shape("blk.1.ffn_gate_exps.weight"), ["Q4_0", 64, 32, 4]);
    assert.deepEqual(shape("token_embd.weight"), ["Q8_0", 64, 280]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("convertCheckpoint() refuses unequal heads", async () => {
  await assert.rejects(
    convertCheckpoint(TINY_DIRECTORY, "/nonexistent", "Q8_0"),
    /wanted one number of heads, found 3 KDA and 4 MLA heads/,
  );
});

Deno.test("a converted vocabulary merges to the ids of Kedge's tokenizer", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const model = await withEqualHeads(TINY_DIRECTORY, `${directory}/model`);
    await convertCheckpoint(model, `${directory}/model.gguf`, "Q4_0");
    const { metadata } = readGguf(`${directory}/model.gguf`);
    const tokens = metadata.get("tokenizer.ggml.tokens") as string[];
    const merges = new Map(
      (metadata.get("tokenizer.ggml.merges") as string[]).map((m, i) => [m, i]),
    );
    assert.equal(tokens.length, 4096);
    assert.equal(tokens[3842], "<|im_end|>");
    for (const word of ["story", "children", "wonderful", "12", "Zürich", "!?"]) {
      const ids = mergedParts(word, merges).map((part) => tokens.indexOf(part));
      assert.deepEqual(ids, [...tinyTokenizer.encode(word)], word);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

/** Merges the bytes of a word, the earliest merge first. Bytes below U+0100 are spelled as such. */
function mergedParts(word: string, merges: ReadonlyMap<string, number>): string[] {
  const parts = Array.from(new TextEncoder().encode(word), (byte) => String.fromCharCode(byte));
  for (;;) {
    const ranks = parts.slice(1).map((part, i) => merges.get(`${parts[i]} ${part}`) ?? Infinity);
    const best = Math.min(...ranks);
    if (best === Infinity) return parts;
    const at = ranks.indexOf(best);
    parts.splice(at, 2, parts[at]! + parts[at + 1]!);
  }
}

Deno.test("withEqualHeads() adds heads that change nothing", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const padded = await withEqualHeads(TINY_DIRECTORY, `${directory}/model`);
    assert.equal(await withEqualHeads(padded, `${directory}/again`), padded);
    const [wanted, found] = [await continuation(TINY_DIRECTORY), await continuation(padded)];
    assert.deepEqual(found.map(({ id }) => id), wanted.map(({ id }) => id));
    found.forEach(({ logprob }, i) => {
      assert.ok(Math.abs(logprob - wanted[i]!.logprob) < 1e-3, `${logprob}`);
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

async function continuation(modelDirectory: string): Promise<{ id: number; logprob: number }[]> {
  const engine = await startEngine({
    modelDirectory,
    device: "cpu",
    slots: 1,
    contextTokens: 64,
    latentFormat: "f32",
  });
  try {
    const found: { id: number; logprob: number }[] = [];
    const events = engine.generate({
      promptIds: Uint32Array.from(tinyTokenizer.encode("Once upon a time there was a fox")),
      maxTokens: 12,
      sampling: GREEDY_SAMPLING,
      minTokens: 0,
      grammar: null,
      stopIds: [],
      logprobs: 0,
      promptLogprobs: false,
      progress: false,
      owner: "",
    });
    for await (const event of events) {
      if (event.type === "token") found.push({ id: event.id, logprob: event.logprob!.logprob });
    }
    return found;
  } finally {
    await engine.close();
  }
}

Deno.test("writeSyntheticGguf() writes a whole file of sensible scale, the same for a seed", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const config = parseModelConfig(draftModel({ config: EQUAL_HEADS }).config, "config.json");
    const write = (name: string, seed: number) => {
      const options = { quantisation: "Q4_0", seed, skew: 0.5 } as const;
      writeSyntheticGguf({ ...config, bosId: 24, eosId: 26, padId: 279 }, "s", name, options);
      return Deno.readFileSync(name);
    };
    const path = `${directory}/a.gguf`;
    const first = write(path, 1);
    assert.deepEqual(write(`${directory}/b.gguf`, 1), first);
    assert.notDeepEqual(write(`${directory}/c.gguf`, 2), first);
    const { tensors, metadata } = readGguf(path);
    assert.equal(new Set(metadata.get("tokenizer.ggml.tokens") as string[]).size, 280);
    for (
      const name of ["blk.1.ffn_up_exps.weight", "blk.0.attn_q.weight", "blk.0.ssm_f_b.weight"]
    ) {
      const { dimensions, values } = tensors.get(name)!;
      const squares = values().map((value) => value * value * dimensions[0]!);
      const mean = squares.reduce((a, b) => a + b) / squares.length;
      assert.ok(mean > 0.85 && mean < 1.25, `${name}: ${mean}`);
    }
    assert.ok(tensors.get("blk.0.ssm_a")!.values().every((a) => a <= -1 && a >= -16));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
