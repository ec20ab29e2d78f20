/** Checkpoints whose tensors do not fit the model. */

import { atQ0, broken, type BrokenModel, Q0 } from "./broken_model.ts";
import type { Draft, DraftOptions } from "./checkpoint_writer.ts";

const EXPERT = "model.layers.2.block_sparse_moe.experts.1.w3.weight";

/** One tensor of the draft, changed. */
function tensor(
  name: string,
  expected: RegExp,
  change: (tensor: Draft["tensors"][number], draft: Draft) => void,
  options: DraftOptions = {},
  target = Q0,
): BrokenModel {
  return broken(name, expected, {
    options,
    draft: (draft) => change(draft.tensors.find((t) => t.name === target)!, draft),
  });
}

const BLOCK: DraftOptions = { format: "fp8-block" };
const ROW: DraftOptions = { format: "fp8-row" };

function remove(draft: Draft, name: string): void {
  draft.tensors = draft.tensors.filter((t) => t.name !== name);
}

function retype(tensor: Draft["tensors"][number], dtype: string, bytes: number): void {
  tensor.dtype = dtype;
  tensor.bytes = new Uint8Array(tensor.shape.reduce((a, b) => a * b, 1) * bytes);
}

export const BROKEN_TENSORS: readonly BrokenModel[] = [
  tensor(
    "tensor missing",
    atQ0("wanted shape \\[16, 20\\], found none$"),
    (t, draft) => remove(draft, t.name),
  ),
  tensor(
    "tensor transposed",
    atQ0("wanted shape \\[16, 20\\], found \\[20, 16\\]$"),
    (t) => t.shape.reverse(),
  ),
  tensor(
    "tensor of another rank",
    atQ0("wanted shape \\[16, 20\\], found \\[320\\]$"),
    (t) => t.shape = [320],
  ),
  tensor("tensor I32", atQ0("wanted BF16, .*, found I32$"), (t) => retype(t, "I32", 4)),
  tensor("tensor e5m2", atQ0("wanted .*, found F8_E5M2$"), (t) => retype(t, "F8_E5M2", 1)),
  tensor(
    "norm in fp8",
    /"model\.norm\.weight" .* wanted BF16, F16 or F32, found F8_E4M3$/,
    (t) => retype(t, "F8_E4M3", 1),
    {},
    "model.norm.weight",
  ),
  tensor(
    "A_log of another shape",
    /A_log" in .*: wanted shape \[1, 1, 2, 1\] or \[2\], found \[2, 1\]$/,
    (t) => t.shape = [2, 1],
    {},
    "model.layers.0.self_attn.A_log",
  ),
  tensor(
    "unknown tensor",
    /^read tensor "model\.extra" in "model\.safetensors": wanted no tensor .*, found BF16 \[/,
    (t, draft) => draft.tensors.push({ ...t, name: "model.extra" }),
  ),
  tensor(
    "bias that the model lacks",
    /^read tensor "model\.layers\.0\.self_attn\.g_b_proj\.bias" in .*: wanted no tensor/,
    (t, draft) => draft.tensors.push({ ...t, name: "model.layers.0.self_attn.g_b_proj.bias" }),
  ),
  tensor(
    "a layer too many",
    /^read tensor "model\.layers\.4\.input_layernorm\.weight" in .*: wanted no tensor/,
    (t, draft) => draft.tensors.push({ ...t, name: "model.layers.4.input_layernorm.weight" }),
  ),
  tensor(
    "an expert too many",
    /^read tensor "model\.layers\.1\.block_sparse_moe\.experts\.4\.w1\.weight" in .*: wanted no/,
    (t, draft) =>
      draft.tensors.push({ ...t, name: "model.layers.1.block_sparse_moe.experts.4.w1.weight" }),
  ),
  tensor(
    "names of transformers 5",
    /wanted the original tensor names of Kimi-Linear, found the names that transformers 5/,
    (_, draft) => {
      for (const t of draft.tensors) t.name = t.name.replace("block_sparse_moe", "mlp");
    },
  ),
  tensor(
    "packed int4",
    /weight_packed" in .*: wanted weights in bf16, f16, f32 or fp8, found a packed format$/,
    (t) => t.name = t.name.replace("weight", "weight_packed"),
  ),
  tensor(
    "fp8 without scale",
    atQ0('wanted scales in ".*_scale_inv" or ".*_scale", found none$'),
    (t, draft) => remove(draft, `${t.name}_scale_inv`),
    BLOCK,
  ),
  tensor(
    "fp8 with both scales",
    atQ0("wanted scales in .*, found both$"),
    (t, draft) => {
      const scale = draft.tensors.find(({ name }) => name === `${t.name}_scale_inv`)!;
      draft.tensors.push({ ...scale, name: `${t.name}_scale` });
    },
    BLOCK,
  ),
  tensor(
    "scale without fp8",
    /q_proj\.weight_scale" in .*: wanted no tensor of this name/,
    (t, draft) => draft.tensors.push({ ...t, name: `${t.name}_scale` }),
  ),
  tensor(
    "scale grid transposed",
    /q_proj\.weight_scale_inv" in .*: wanted shape \[2, 2\], found \[4, 1\]$/,
    (t) => t.shape = [4, 1],
    BLOCK,
    `${Q0}_scale_inv`,
  ),
  tensor(
    "scale of too few rows",
    /q_proj\.weight_scale" in .*: wanted shape \[16, 1\], \[16\], \[1\] or \[\], found \[8, 2\]$/,
    (t) => t.shape = [8, 2],
    ROW,
    `${Q0}_scale`,
  ),
  tensor(
    "scale in I16",
    /q_proj\.weight_scale" in .*: wanted F32, BF16 or F16, found I16$/,
    (t) => t.dtype = "I16",
    ROW,
    `${Q0}_scale`,
  ),
  tensor(
    "one expert in bf16",
    /experts\.1\.w3\.weight" .*: wanted fp8 .* per 8 x 16 as in ".*0\.w3.*", found bf16$/,
    (t, draft) => {
      retype(t, "BF16", 2);
      remove(draft, `${t.name}_scale_inv`);
    },
    BLOCK,
    EXPERT,
  ),
  tensor(
    "one expert scaled as a whole",
    /experts\.1\.w3\.weight" .*: wanted fp8 .* per 1 x 20 as in .*, found fp8 .* 12 x 20$/,
    (t) => {
      t.shape = [1];
      t.bytes = t.bytes.slice(0, 2);
    },
    ROW,
    `${EXPERT}_scale`,
  ),
  ...[["NaN", NaN], ["infinite", -Infinity]].map(([label, value]) => ({
    ...tensor(
      `scale ${label}`,
      /q_proj\.weight_scale_inv" in .*: wanted finite scales, found (NaN|-Infinity) at element 2$/,
      (t) => new DataView(t.bytes.buffer).setFloat32(8, value as number, true),
      BLOCK,
      `${Q0}_scale_inv`,
    ),
    stage: "load" as const,
  })),
];
