/**
 * What each weight is kept as on the device, from how the file has it and what was asked for.
 *
 *   asked for        file   bf16   fp8    q8     q4
 *   matrices         as is  as is  as is  q8     q4
 *   embed, head      as is  as is  as is  q8     q8
 *   all other keys   as is  as is  as is  as is  as is
 *
 * `matrices` are kda.q .k .v .o, mla.q .o, dense, moe.gate .up .down and shared: 98 % of the 48B
 * model. What is left as it is are the keys through which an error spreads furthest (router, gates,
 * write strength, latent) and the small ones. `bf16` and `fp8` only make sure that the file is
 * that: nothing is rounded to them and nothing is widened. Integers of a file stay as they are.
 */

import { UsageError } from "../errors.ts";
import type { TensorSpec, WeightFormat } from "../model/device.ts";
import { quote } from "../wording.ts";
import { GROUP_COLUMNS } from "./packed.ts";
import type { PlannedPart, PlannedWeight } from "./plan.ts";

/** What `--weights` takes. */
export const WEIGHT_CHOICES = ["q4", "q8", "fp8", "bf16"] as const;
export type WeightChoice = typeof WEIGHT_CHOICES[number];

/** One weight as the device is to hold it. */
export interface ResidentWeight {
  /** As the device holds it. */
  readonly spec: TensorSpec;
  /** As the file has it; another format than the device's where it is rounded to integers. */
  readonly stored: TensorSpec;
  readonly parts: readonly PlannedPart[];
}

const MATRIX = /^\d+\.(kda\.[qkvo]|mla\.[qo]|(dense|moe|shared)\.(gate|up|down))$/;
const VOCABULARY = /^(embed|head)$/;

/** Whether `key` is one of the large matrices. */
export function isMatrix(key: string): boolean {
  return MATRIX.test(key);
}

/** How key `key` is kept when the file has it as `stored`. */
export function residentFormat(
  key: string,
  stored: WeightFormat,
  choice: WeightChoice | "file",
): WeightFormat {
  if ((choice !== "q8" && choice !== "q4") || stored === "q8" || stored === "q4") return stored;
  if (isMatrix(key)) return choice;
  return VOCABULARY.test(key) ? "q8" : stored;
}

/** Every weight as the device is to hold it. Throws UsageError when the file can't give that. */
export function residentWeights(
  weights: readonly PlannedWeight[],
  choice: WeightChoice | "file",
): ResidentWeight[] {
  checkStored(weights, choice);
  return weights.map(({ spec: stored, parts }) => {
    const format = residentFormat(stored.key, stored.format, choice);
    if (format === stored.format) return { spec: stored, stored, parts };
    return { spec: { ...stored, format, scale: null }, stored, parts };
  });
}

/** Nothing is rounded to fp8 or widened from it: whoever asks for either has to have it. */
function checkStored(weights: readonly PlannedWeight[], choice: WeightChoice | "file"): void {
  if (choice !== "bf16" && choice !== "fp8") return;
  const wanted = (format: WeightFormat) =>
    choice === "fp8" ? format !== "q8" && format !== "q4" : /^b?f\d\d$/.test(format);
  const bad = weights.find(({ spec }) => !wanted(spec.format));
  if (bad !== undefined) refuseChoice(choice, bad.spec.format, bad.parts[0]!.tensor.name);
  if (choice === "bf16" || weights.some(({ spec }) => spec.format === "fp8")) return;
  const float = weights.find(({ spec }) => MATRIX.test(spec.key))!;
  refuseChoice(choice, float.spec.format, float.parts[0]!.tensor.name);
}

function refuseChoice(choice: WeightChoice, format: WeightFormat, name: string): never {
  const file = choice === "bf16" ? "a file with bf16, f16 or f32 alone" : "a file with fp8";
  throw new UsageError(
    `read --weights ${choice}: wanted ${file}, found ${format} in ${quote(name)}`,
  );
}

const FORMAT_BITS: Readonly<Record<WeightFormat, number>> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  fp8: 8,
  q8: 8,
  q4: 4,
};
/** To this many elements the widest device pads rows of floats. */
const ROW_ELEMENTS = 16;

/** Small matrices that the webgpu device widens to f32 where they are fp8. */
const WIDENED = /\.(kda\.(f_a|f_b|g_a|g_b|b)|mla\.kv_a|moe\.router)$/;

/** Bytes of a weight with its scales, as the device that takes most holds it. */
export function residentBytes(spec: TensorSpec): number {
  const { key, matrices, rows, columns, scale } = spec;
  const format = spec.format === "fp8" && WIDENED.test(key) ? "f32" : spec.format;
  const groups = Math.ceil(columns / GROUP_COLUMNS);
  const grouped = format === "q8" || format === "q4";
  const padding = grouped ? GROUP_COLUMNS : ROW_ELEMENTS;
  const elements = rows * padding * Math.ceil(columns / padding) * FORMAT_BITS[format] / 8;
  const groupScales = grouped ? 4 * rows * Math.ceil(groups / 2) : 0;
  const gridScales = scale === null
    ? 0
    : 4 * Math.ceil(rows / scale.rowsPerScale) * Math.ceil(columns / scale.columnsPerScale);
  return matrices * (elements + groupScales + gridScales);
}
