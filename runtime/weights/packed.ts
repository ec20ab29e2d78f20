/**
 * Weights that a file holds as integers in groups of 32 columns, with compressed-tensors' names:
 *
 *   X.weight_packed I32 [rows, columns / 8]   int4: eight a word, the lowest column in the lowest
 *                                             half byte, each stored as q + 8 (`pack-quantized`)
 *   X.weight I8 [rows, columns]               int8 (`int-quantized`)
 *   X.weight_scale [rows, columns / 32]       value = q x scale, for both
 *   X.weight_shape I64 [2]                    rows and columns, with weight_packed only
 *
 * Little-endian, so the elements are byte for byte what devices take as q4 and q8.
 */

import type { WeightFormat } from "../model/device.ts";
import { quote, refuse, shapeText } from "../wording.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { ExpectedWeight } from "./names.ts";
import type { StoredTensor } from "./safetensors.ts";

/** Columns that share a scale. */
export const GROUP_COLUMNS = 32;

/** Elements of int4 in one I32. */
const PACKED_ELEMENTS = 8;
const SCALE_TYPES = ["F32", "F16", "BF16"];

export interface PackedTensors {
  readonly format: Extract<WeightFormat, "q8" | "q4">;
  readonly elements: StoredTensor;
  readonly scale: StoredTensor;
  /** Holds rows and columns once more; null for int8. */
  readonly shape: StoredTensor | null;
}

/**
 * The tensors of weight `name` (ending in `.weight`), or null when it isn't stored in groups.
 * Throws ModelError.
 */
export function findPacked(
  name: string,
  expected: ExpectedWeight,
  checkpoint: Checkpoint,
): PackedTensors | null {
  const { rows, columns } = expected;
  const plain = checkpoint.tensors.get(name);
  const packed = checkpoint.tensors.get(`${name}_packed`);
  if (packed === undefined && plain?.type !== "I8") return null;
  const elements = packed ?? plain!;
  const action = readAction(elements);
  if (packed !== undefined && plain !== undefined) {
    refuse(action, `either it or ${quote(name)}`, "both");
  }
  if (expected.widened) refuse(action, "weights in bf16, f16 or f32", elements.type);
  if (columns % GROUP_COLUMNS !== 0) {
    refuse(action, `columns in whole groups of ${GROUP_COLUMNS}`, `${columns}`);
  }
  if (packed !== undefined) {
    checkTensor(packed, ["I32"], [rows, columns / PACKED_ELEMENTS]);
  } else checkTensor(elements, ["I8"], [rows, columns]);
  const scale = checkpoint.tensors.get(`${name}_scale`);
  if (scale === undefined) {
    return refuse(action, `scales in ${quote(`${name}_scale`)}`, "none");
  }
  checkTensor(scale, SCALE_TYPES, [rows, columns / GROUP_COLUMNS]);
  if (packed === undefined) return { format: "q8", elements, scale, shape: null };
  const shape = checkpoint.tensors.get(`${name}_shape`);
  if (shape === undefined) {
    return refuse(action, `its sizes in ${quote(`${name}_shape`)}`, "none");
  }
  checkTensor(shape, ["I64", "I32"], [2]);
  return { format: "q4", elements, scale, shape };
}

function checkTensor(
  tensor: StoredTensor,
  types: readonly string[],
  wanted: readonly number[],
): void {
  if (!types.includes(tensor.type)) {
    refuse(readAction(tensor), types.join(", "), tensor.type);
  }
  const [shape, found] = [shapeText(wanted), shapeText(tensor.shape)];
  if (shape !== found) refuse(readAction(tensor), `shape ${shape}`, found);
}

/** What is being done when a tensor turns out to be wrong. */
export function readAction(tensor: StoredTensor): string {
  return `read tensor ${quote(tensor.name)} in ${quote(tensor.file)}`;
}
