/** Checkpoints whose tensors do not fit the model. */

import { atQ0, broken, type BrokenModel, Q0 } from "./broken_model.ts";
import { type Draft, type DraftOptions, GROUPED_SIZES } from "./checkpoint_writer.ts";

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

/** One of the tensors of an int4 weight, changed. */
function integers(
  label: string,
  expected: RegExp,
  suffix: string,
  change: (tensor: Draft["tensors"][number], draft: Draft) => void,
  stage: BrokenModel["stage"] = "open",
): BrokenModel {
  const options: DraftOptions = { format: "int4", config: GROUPED_SIZES };
  return { ...tensor(`int4 ${label}`, expected, change, options, `${Q0}${suffix}`), stage };
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
    "packed float4",
    /weight_global_scale" in .*: wanted weights in floats or .*, found a packed format$/,
    (t, draft) => draft.tensors.push({ ...t, name: `${t.name}_global_scale` }),
  ),
  tensor(
    "int4 in part of a group",
    /weight_packed" in .*: wanted columns in whole groups of 32, found 20$/,
    (t) => t.name = `${t.name}_packed`,
  ),
  integers("in another type", /: wanted I32, found U32$/, "_packed", (t) => t.dtype = "U32"),
  integers(
    "beside its weight",
    /: wanted either it or .*, found both$/,
    "_packed",
    (t, draft) => draft.tensors.push({ ...t, name: Q0 }),
  ),
  integers(
    "without scales",
    /: wanted scales in .*_scale", found none$/,
    "_scale",
    (t, draft) => remove(draft, t.name),
  ),
  integers(
    "without shape",
    /: wanted its sizes in .*_shape", found none$/,
    "_shape",
    (t, draft) => remove(draft, t.name),
  ),
  integers(
    "in groups of 96",
    /: wanted shape \[16, 3\], found \[48, 1\]$/,
    "_scale",
    (t) => t.shape = [48, 1],
  ),
  integers(
    "with scales in I16",
    /: wanted F32, F16, BF16, found I16$/,
    "_scale",
    (t) => t.dtype = "I16",
  ),
  integers(
    "with zero points",
    /weight_zero_point" in .*: wanted symmetric integers, found zero points/,
    "_shape",
    (t, draft) => draft.tensors.push({ ...t, name: `${Q0}_zero_point` }),
  ),
  integers(
    "of another size inside",
    /weight_shape" in .*: wanted 16 and 96, found 16 and 97$/,
    "_shape",
    (t) => t.bytes[8] = 97,
    "load",
  ),
  integers(
    "with a scale of infinity",
    /weight_scale" in .*: wanted finite values .* f16 can hold, found others in row 1$/,
    "_scale",
    (t) => [t.bytes[6], t.bytes[7]] = [0x80, 0x7f],
    "load",
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
