import assert from "node:assert/strict";
import { loadWeights, openModelFolder } from "../../runtime/weights/model_folder.ts";
import {
  type Draft,
  type DraftFormat,
  draftModel,
  type DraftOptions,
  encodeDraft,
  writeFiles,
} from "../tools/checkpoint_writer.ts";
import { RecordingDevice } from "../tools/recording_device.ts";

/** Key after the layer's number -> name after `model.layers.L.`; N stands for the expert. */
const LAYER_NAMES: Record<string, string> = {
  mixer_norm: "input_layernorm.weight",
  ffn_norm: "post_attention_layernorm.weight",
  "kda.q": "self_attn.q_proj.weight",
  "kda.k": "self_attn.k_proj.weight",
  "kda.v": "self_attn.v_proj.weight",
  "kda.q_conv": "self_attn.q_conv1d.weight",
  "kda.k_conv": "self_attn.k_conv1d.weight",
  "kda.v_conv": "self_attn.v_conv1d.weight",
  "kda.a_log": "self_attn.A_log",
  "kda.dt_bias": "self_attn.dt_bias",
  "kda.f_a": "self_attn.f_a_proj.weight",
  "kda.f_b": "self_attn.f_b_proj.weight",
  "kda.b": "self_attn.b_proj.weight",
  "kda.g_a": "self_attn.g_a_proj.weight",
  "kda.g_b": "self_attn.g_b_proj.weight",
  "kda.o_norm": "self_attn.o_norm.weight",
  "kda.o": "self_attn.o_proj.weight",
  "mla.q": "self_attn.q_proj.weight",
  "mla.kv_a": "self_attn.kv_a_proj_with_mqa.weight",
  "mla.kv_norm": "self_attn.kv_a_layernorm.weight",
  "mla.kv_b": "self_attn.kv_b_proj.weight",
  "mla.o": "self_attn.o_proj.weight",
  "dense.gate": "mlp.gate_proj.weight",
  "dense.up": "mlp.up_proj.weight",
  "dense.down": "mlp.down_proj.weight",
  "moe.router": "block_sparse_moe.gate.weight",
  "moe.router_bias": "block_sparse_moe.gate.e_score_correction_bias",
  "moe.gate": "block_sparse_moe.experts.N.w1.weight",
  "moe.up": "block_sparse_moe.experts.N.w3.weight",
  "moe.down": "block_sparse_moe.experts.N.w2.weight",
  "shared.gate": "block_sparse_moe.shared_experts.gate_proj.weight",
  "shared.up": "block_sparse_moe.shared_experts.up_proj.weight",
  "shared.down": "block_sparse_moe.shared_experts.down_proj.weight",
};
const TOP_NAMES: Record<string, string> = {
  embed: "model.embed_tokens.weight",
  norm: "model.norm.weight",
  head: "lm_head.weight",
};
const WIDENED = /norm$|_conv$|a_log$|dt_bias$|router_bias$/;

function storedName(key: string, expert: number): string {
  const layer = /^(\d+)\.(.+)$/.exec(key);
  if (layer === null) return TOP_NAMES[key]!;
  return `model.layers.${layer[1]}.${LAYER_NAMES[layer[2]!]!.replace("N", String(expert))}`;
}

/** One stored element as a number, by arithmetic and not by the loader's bit moves. */
function elementValue(dtype: string, bytes: Uint8Array, index: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "F32") return view.getFloat32(4 * index, true);
  const bits = view.getUint16(2 * index, true);
  const [exponentBits, fractionBits, bias] = dtype === "F16" ? [5, 10, 15] : [8, 7, 127];
  const sign = bits >> 15 === 1 ? -1 : 1;
  const exponent = (bits >> fractionBits) & ((1 << exponentBits) - 1);
  const fraction = (bits & ((1 << fractionBits) - 1)) / (1 << fractionBits);
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

function values(tensor: Draft["tensors"][number]): number[] {
  const count = tensor.shape.reduce((a, b) => a * b, 1);
  return Array.from({ length: count }, (_, i) => elementValue(tensor.dtype, tensor.bytes, i));
}

async function withFolder<T>(draft: Draft, use: (directory: string) => Promise<T>): Promise<T> {
  const root = Deno.makeTempDirSync({ prefix: "kedge-model-" });
  try {
    writeFiles(`${root}/small`, encodeDraft(draft));
    return await use(`${root}/small`);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

/** Loads the draft from disk and compares every byte and scale that the device got. */
async function checkLoad(draft: Draft): Promise<void> {
  await withFolder(draft, async (directory) => {
    const folder = await openModelFolder(directory);
    const device = new RecordingDevice();
    const steps: [number, number][] = [];
    const report = await loadWeights(folder, device, (done, total) => steps.push([done, total]));
    device.checkComplete();

    const stored = new Map(draft.tensors.map((tensor) => [tensor.name, tensor]));
    const total = draft.tensors.reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert.equal(report.bytes, total);
    assert.equal(folder.weightBytes, total);
    assert.ok(steps.every(([done], i) => done > (steps[i - 1]?.[0] ?? 0)));
    assert.deepEqual(steps.at(-1), [total, total]);
    let parameterCount = 0;
    for (const { spec, matrices, scales } of device.weights.values()) {
      matrices.forEach((bytes, matrix) => {
        const name = storedName(spec.key, matrix);
        const tensor = stored.get(name)!;
        stored.delete(name);
        parameterCount += spec.rows * spec.columns;
        if (WIDENED.test(spec.key)) {
          assert.equal(spec.format, "f32");
          assert.deepEqual([...new Float32Array(bytes.buffer)], values(tensor), spec.key);
        } else {
          const format = tensor.dtype === "F8_E4M3" ? "fp8" : tensor.dtype.toLowerCase();
          assert.equal(spec.format, format);
          assert.deepEqual([spec.rows, spec.columns], tensor.shape, spec.key);
          assert.ok(bytes.every((byte, i) => byte === tensor.bytes[i]), spec.key);
        }
        if (spec.format !== "fp8") return assert.equal(spec.scale, null);
        const scaleName = stored.has(`${name}_scale`) ? `${name}_scale` : `${name}_scale_inv`;
        assert.deepEqual([...scales[matrix]!], values(stored.get(scaleName)!));
        stored.delete(scaleName);
      });
    }
    assert.deepEqual([...stored.keys()], []);
    assert.equal(folder.parameterCount, parameterCount);
  });
}

const FORMATS: DraftFormat[] = ["BF16", "F16", "F32", "fp8-block", "fp8-row", "fp8-tensor"];

for (const format of FORMATS) {
  for (const shards of [1, 3]) {
    Deno.test(`weights arrive byte for byte: ${format}, ${shards} file(s)`, async () => {
      await checkLoad(draftModel({ format, shards, seed: 7 }));
    });
  }
}

const SHAPES: [string, DraftOptions][] = [
  ["no shared expert", { config: { num_shared_experts: 0 } }],
  ["all layers dense", { config: { first_k_dense_replace: 4 } }],
  ["all layers MoE", { config: { first_k_dense_replace: 0 } }],
  ["every second layer MoE", { config: { moe_layer_freq: 2 }, format: "fp8-row" }],
  ["one expert", { config: { num_experts: 1, num_experts_per_token: 1 } }],
];
for (const [label, options] of SHAPES) {
  Deno.test(`weights arrive byte for byte: ${label}`, () => checkLoad(draftModel(options)));
}

Deno.test("A_log may be flat", async () => {
  const draft = draftModel();
  for (const tensor of draft.tensors) if (tensor.name.endsWith("A_log")) tensor.shape = [2];
  await checkLoad(draft);
});

Deno.test("scales by row may be [rows] and of a whole tensor []", async () => {
  const rows = draftModel({ format: "fp8-row" });
  const whole = draftModel({ format: "fp8-tensor" });
  for (const { tensors } of [rows, whole]) {
    for (const t of tensors) if (t.name.endsWith("_scale")) t.shape.pop();
  }
  await checkLoad(rows);
  await checkLoad(whole);
});

Deno.test("scale layouts of fp8", async () => {
  const expected = {
    "fp8-block": { rowsPerScale: 8, columnsPerScale: 16 },
    "fp8-row": { rowsPerScale: 1, columnsPerScale: 20 },
    "fp8-tensor": { rowsPerScale: 12, columnsPerScale: 20 },
  };
  for (const [format, scale] of Object.entries(expected)) {
    await withFolder(draftModel({ format: format as DraftFormat }), async (directory) => {
      const folder = await openModelFolder(directory);
      const { spec } = folder.tensors.weights.find(({ spec }) => spec.key === "1.moe.gate")!;
      assert.deepEqual(spec, {
        key: "1.moe.gate",
        format: "fp8",
        matrices: 4,
        rows: 12,
        columns: 20,
        scale,
      });
    });
  }
});

Deno.test("block scales default to 128 x 128 without quantization_config", async () => {
  const draft = draftModel({ format: "fp8-block" });
  delete draft.config.quantization_config;
  for (const tensor of draft.tensors) {
    if (!tensor.name.endsWith("_scale_inv")) continue;
    tensor.shape = [1, 1];
    tensor.bytes = tensor.bytes.slice(0, 4);
  }
  await checkLoad(draft);
});

Deno.test("a tensor larger than the buffer arrives in ordered pieces", async () => {
  const config = { vocab_size: 120_000, pad_token_id: 256 };
  await withFolder(draftModel({ config, format: "F32" }), async (directory) => {
    const folder = await openModelFolder(directory);
    const device = new RecordingDevice();
    const report = await loadWeights(folder, device);
    device.checkComplete();
    const largest = 120_000 * 20 * 4;
    assert.ok(report.peakBufferBytes < largest, `${report.peakBufferBytes} bytes held`);
  });
});

Deno.test("a file that changes between check and load is refused", async () => {
  await withFolder(draftModel(), async (directory) => {
    const folder = await openModelFolder(directory);
    const path = `${directory}/model.safetensors`;
    Deno.truncateSync(path, Deno.statSync(path).size - 2);
    await assert.rejects(
      loadWeights(folder, new RecordingDevice()),
      /^ModelError: read "model\.safetensors": wanted \d+ bytes as before, found \d+$/,
    );
  });
});

Deno.test("links are followed inside the folder, and to the folder", async () => {
  await withFolder(draftModel(), async (directory) => {
    Deno.renameSync(`${directory}/model.safetensors`, `${directory}/blob`);
    Deno.symlinkSync("blob", `${directory}/model.safetensors`);
    Deno.symlinkSync(directory, `${directory}-link`);
    const folder = await openModelFolder(`${directory}-link/`);
    assert.equal(folder.id, "small-link");
    const device = new RecordingDevice();
    await loadWeights(folder, device);
    device.checkComplete();
  });
});

Deno.test("the embedded model opens and loads", async () => {
  const directory = new URL("../../models/kedge-tiny", import.meta.url).pathname;
  const folder = await openModelFolder(directory);
  assert.equal(folder.id, "kedge-tiny");
  assert.equal(folder.config.contextLength, 8192);
  assert.equal(folder.tokenizer.rankCount, 3840);
  assert.deepEqual(folder.generation, {
    temperature: 0.6,
    topK: 0,
    topP: 1,
    minP: 0,
    eosIds: [3841, 3842],
  });
  assert.equal(folder.parameterCount, 26_090_994);
  const device = new RecordingDevice();
  const { bytes, peakBufferBytes } = await loadWeights(folder, device);
  device.checkComplete();
  assert.equal(bytes, 29_343_656);
  assert.ok(peakBufferBytes < 8 * 2 ** 20);
});
