/** Which formats the weights are kept in where nothing was asked for: the best that fits. */
import { CPU_WEIGHT_BYTES_MAX, GPU_WEIGHT_BYTES_DEFAULT } from "../limits.ts";
import type { ModelShape } from "../model/device.ts";
import type { PlannedWeight } from "../weights/plan.ts";
import {
  residentBytes,
  type ResidentWeight,
  residentWeights,
  type WeightChoice,
} from "../weights/resident.ts";
import { type CapacityOptions, neededBytes } from "./capacity.ts";

export interface ChosenWeights {
  readonly weights: readonly ResidentWeight[];
  /** Bytes on the device. */
  readonly bytes: number;
  /** For people: what was asked for, or found to fit. */
  readonly name: string;
}

/** What has to fit beside the weights, and where. */
export type Room =
  & Pick<CapacityOptions, "slots" | "contextTokens" | "latentFormat" | "memoryBytes">
  & {
    /** "cpu" or "webgpu". */
    readonly deviceKind: string;
  };

/** From the most exact on. */
const BY_QUALITY = ["file", "q8", "q4"] as const;

/**
 * What `choice` asks for. Without one: the first of as in the file, q8 and q4 that fits a budget
 * beside slots and one whole context. Without a budget: whose weights alone stay below what the cpu
 * device can address, or below what common cards hold, as WebGPU doesn't tell what this one has.
 * Where none does, the smallest. Throws UsageError for a choice that the file can't give.
 */
export function chooseWeights(
  planned: readonly PlannedWeight[],
  choice: WeightChoice | undefined,
  shape: ModelShape,
  room: Room,
): ChosenWeights {
  if (choice !== undefined) return resident(planned, choice);
  const most = room.deviceKind === "cpu" ? CPU_WEIGHT_BYTES_MAX : GPU_WEIGHT_BYTES_DEFAULT;
  const fits = (weightBytes: number) =>
    room.memoryBytes === undefined
      ? weightBytes <= most
      : neededBytes(shape, { ...room, weightBytes }) <= room.memoryBytes;
  for (const quality of BY_QUALITY) {
    const chosen = resident(planned, quality);
    if (fits(chosen.bytes)) return chosen;
  }
  return resident(planned, "q4");
}

function resident(planned: readonly PlannedWeight[], choice: WeightChoice | "file"): ChosenWeights {
  const weights = residentWeights(planned, choice);
  const bytes = weights.reduce((sum, { spec }) => sum + residentBytes(spec), 0);
  return { weights, bytes, name: choice === "file" ? "as in the file" : choice };
}
