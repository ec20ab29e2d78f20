/**
 * Which checkpoint tensor becomes which weight, all checked: names both ways, types, shapes, and
 * the scales of fp8 and of integers. What a tensor is stored as is decided by the names that exist
 * and their types, one tensor at a time; config.json only gives the side of a scale block.
 */

import { MAX_MODEL_TENSORS } from "../limits.ts";
import type { ModelConfig } from "../model/config.ts";
import type { TensorSpec, WeightFormat } from "../model/device.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { expectedTensorCount, type ExpectedWeight, expectedWeights } from "./names.ts";
import { findPacked, readAction } from "./packed.ts";
import type { ElementType, StoredTensor } from "./safetensors.ts";
import { quote, refuse, shapeText } from "../wording.ts";

/** One weight and where its bytes are. */
export interface PlannedWeight {
  /** As the file has it, but f32 where devices take nothing else. */
  readonly spec: TensorSpec;
  /** One a matrix. */
  readonly parts: readonly PlannedPart[];
}

export interface PlannedPart {
  readonly tensor: StoredTensor;
  /** fp8: as many elements as the spec's scale grid. q8, q4: one a group of 32 columns. */
  readonly scale: StoredTensor | null;
  /** q4 only: two integers, rows and columns. */
  readonly shape: StoredTensor | null;
}

export interface WeightPlan {
  readonly weights: readonly PlannedWeight[];
  /** Elements of all weights, scales not counted. */
  readonly parameterCount: number;
  /** Bytes of all weights and scales as stored. */
  readonly storedBytes: number;
}

const FORMATS: Partial<Record<ElementType, WeightFormat>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  F8_E4M3: "fp8",
};

/** Names that transformers 5 writes when it saves a model that it loaded. */
const RENAMED =
  /\.self_attn\.(forget_gate\.|conv1d\.)|\.mlp\.(experts\.|gate\.weight|shared_experts\.)/;
/** Names of formats that this program doesn't read. */
const PACKED = /\.(weight_global_scale|qweight|qzeros|g_idx|scales|biases)$/;

const ZERO_POINT = /\.weight_zero_point$/;

/** Matches a checkpoint with the model that config.json describes. Throws ModelError. */
export function planWeights(config: ModelConfig, checkpoint: Checkpoint): WeightPlan {
  checkLayout(checkpoint);
  const wantedCount = expectedTensorCount(config.shape);
  if (wantedCount > MAX_MODEL_TENSORS) {
    const found = `${wantedCount} for its layers and experts`;
    refuse(`read "config.json"`, `a model of at most ${MAX_MODEL_TENSORS} tensors`, found);
  }
  const unused = new Set(checkpoint.tensors.keys());
  const weights = expectedWeights(config.shape).map((expected) =>
    planWeight(expected, config, checkpoint, unused)
  );
  for (const name of unused) {
    const tensor = checkpoint.tensors.get(name)!;
    const found = `${tensor.type} ${shapeText(tensor.shape)}`;
    const reason = "no tensor of this name for this config.json";
    refuse(readAction(tensor), reason, found);
  }
  let parameterCount = 0;
  let storedBytes = 0;
  for (const tensor of checkpoint.tensors.values()) storedBytes += tensor.byteLength;
  for (const { spec } of weights) parameterCount += spec.matrices * spec.rows * spec.columns;
  return { weights, parameterCount, storedBytes };
}

/** Names a whole checkpoint's fault instead of its first tensor's. */
function checkLayout(checkpoint: Checkpoint): void {
  for (const tensor of checkpoint.tensors.values()) {
    if (RENAMED.test(tensor.name)) {
      const wanted = "the original tensor names of Kimi-Linear";
      refuse(readAction(tensor), wanted, "the names that transformers 5 gives when it saves again");
    }
    if (PACKED.test(tensor.name)) {
      refuse(readAction(tensor), "weights in floats or symmetric integers", "a packed format");
    }
    if (ZERO_POINT.test(tensor.name)) {
      refuse(readAction(tensor), "symmetric integers", "zero points of asymmetric ones");
    }
  }
}

function planWeight(
  expected: ExpectedWeight,
  config: ModelConfig,
  checkpoint: Checkpoint,
  unused: Set<string>,
): PlannedWeight {
  let spec: TensorSpec | undefined;
  const parts: PlannedPart[] = [];
  for (const name of expected.names) {
    const { part, format, blocks } = planPart(name, expected, config, checkpoint);
    for (const tensor of [part.tensor, part.scale, part.shape]) {
      if (tensor !== null) unused.delete(tensor.name);
    }
    parts.push(part);
    const { key, rows, columns } = expected;
    const matrices = expected.names.length;
    const partSpec: TensorSpec = { key, format, matrices, rows, columns, scale: blocks };
    spec ??= partSpec;
    checkSame(part.tensor, spec, partSpec, expected);
  }
  return { spec: spec!, parts };
}

function planPart(
  name: string,
  expected: ExpectedWeight,
  config: ModelConfig,
  checkpoint: Checkpoint,
): { part: PlannedPart; format: WeightFormat; blocks: ScaleBlocks | null } {
  const packed = findPacked(name, expected, checkpoint);
  if (packed !== null) {
    const { elements, scale, shape, format } = packed;
    return { part: { tensor: elements, scale, shape }, format, blocks: null };
  }
  const tensor = findTensor(name, expected, checkpoint);
  const stored = storedFormat(tensor, expected);
  const scaled = stored === "fp8" ? findScale(tensor, expected, config, checkpoint) : null;
  return {
    part: { tensor, scale: scaled?.tensor ?? null, shape: null },
    format: expected.widened ? "f32" : stored,
    blocks: scaled?.blocks ?? null,
  };
}

function findTensor(name: string, expected: ExpectedWeight, checkpoint: Checkpoint): StoredTensor {
  const wanted = expected.shapes.map(shapeText).join(" or ");
  const tensor = checkpoint.tensors.get(name);
  if (tensor === undefined) {
    const file = checkpoint.fileBytes.size === 1
      ? quote([...checkpoint.fileBytes.keys()][0]!)
      : `${checkpoint.fileBytes.size} shards`;
    return refuse(`read tensor ${quote(name)} in ${file}`, `shape ${wanted}`, "none");
  }
  if (!expected.shapes.some((shape) => sameShape(shape, tensor.shape))) {
    return refuse(readAction(tensor), `shape ${wanted}`, shapeText(tensor.shape));
  }
  return tensor;
}

function storedFormat(tensor: StoredTensor, expected: ExpectedWeight): WeightFormat {
  const format = FORMATS[tensor.type];
  if (format === undefined || (expected.widened && format === "fp8")) {
    const types = expected.widened ? "BF16, F16 or F32" : "BF16, F16, F32 or F8_E4M3";
    return refuse(readAction(tensor), types, tensor.type);
  }
  return format;
}

type ScaleBlocks = NonNullable<TensorSpec["scale"]>;

/** The scales of an fp8 tensor: `weight_scale_inv`, one a block, or `weight_scale`, one a row or
 * one in all. Both are factors: value = element x scale. */
function findScale(
  tensor: StoredTensor,
  { rows, columns }: ExpectedWeight,
  config: ModelConfig,
  checkpoint: Checkpoint,
): { tensor: StoredTensor; blocks: ScaleBlocks } {
  const byBlock = checkpoint.tensors.get(`${tensor.name}_scale_inv`);
  const byRow = checkpoint.tensors.get(`${tensor.name}_scale`);
  const wanted = `scales in "${tensor.name}_scale_inv" or "${tensor.name}_scale"`;
  if (byBlock !== undefined && byRow !== undefined) refuse(readAction(tensor), wanted, "both");
  const scale = byBlock ?? byRow;
  if (scale === undefined) return refuse(readAction(tensor), wanted, "none");
  const format = FORMATS[scale.type];
  if (format === undefined || format === "fp8") {
    refuse(readAction(scale), "F32, BF16 or F16", scale.type);
  }
  if (byBlock !== undefined) {
    const block = config.scaleBlock;
    const grid = [Math.ceil(rows / block.rows), Math.ceil(columns / block.columns)];
    if (!sameShape(grid, scale.shape)) {
      refuse(readAction(scale), `shape ${shapeText(grid)}`, shapeText(scale.shape));
    }
    return { tensor: scale, blocks: { rowsPerScale: block.rows, columnsPerScale: block.columns } };
  }
  const perRow = sameShape([rows, 1], scale.shape) || sameShape([rows], scale.shape);
  if (!perRow && !sameShape([1], scale.shape) && !sameShape([], scale.shape)) {
    refuse(readAction(scale), `shape [${rows}, 1], [${rows}], [1] or []`, shapeText(scale.shape));
  }
  const blocks = { rowsPerScale: perRow ? 1 : rows, columnsPerScale: columns };
  return { tensor: scale, blocks };
}

/** Experts under one key lie in one buffer, so they are stored alike. */
function checkSame(
  tensor: StoredTensor,
  first: TensorSpec,
  other: TensorSpec,
  expected: ExpectedWeight,
): void {
  const describe = ({ format, scale }: TensorSpec) =>
    scale === null
      ? format
      : `${format} with a scale per ${scale.rowsPerScale} x ${scale.columnsPerScale}`;
  if (describe(first) === describe(other)) return;
  const wanted = `${describe(first)} as in ${quote(expected.names[0]!)}`;
  refuse(readAction(tensor), wanted, describe(other));
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}
