/** Sizes of the pools that are made once, from a model's shape and a budget of bytes. */
import { DeviceError } from "../errors.ts";
import {
  GPU_STEP_ROWS,
  LOGIT_BYTES_MAX,
  MAX_EOS_IDS,
  MAX_LOGIT_BIASES,
  MAX_STOP_TOKEN_IDS,
  PAGE_TOKENS,
  PENALTY_WINDOW_TOKENS,
  POOL_TOKENS_PER_SLOT,
  STEP_ROWS,
} from "../limits.ts";
import type { Capacity, Device, ModelShape } from "../model/device.ts";

/**
 * Edits of one sequence's logits: penalties, biases, and the stop ids of a text still too short.
 */
const EDITS_MAX = PENALTY_WINDOW_TOKENS + MAX_LOGIT_BIASES + MAX_EOS_IDS + MAX_STOP_TOKEN_IDS;

/** Share of a memory budget kept for the buffers of a step. */
const SCRATCH_SHARE = 0.1;

export interface CapacityOptions {
  readonly slots: number;
  /** Most tokens of one sequence. */
  readonly contextTokens: number;
  readonly latentFormat: "f16" | "f32";
  /** Most bytes of everything on the device; undefined: no budget, pages by a rule of thumb. */
  readonly memoryBytes: number | undefined;
  readonly weightBytes: number;
  /** See Device. */
  readonly bufferBytesMax: number;
  readonly pieceTokens: number;
  /** Rows of one step, see `stepRows`. */
  readonly stepRows: number;
}

/** Rows of one step that suit a device. */
export function stepRows({ kind, isSoftware }: Pick<Device, "kind" | "isSoftware">): number {
  return kind === "webgpu" && !isSoftware ? GPU_STEP_ROWS : STEP_ROWS;
}

/** KDA state of one slot in bytes: f32, all layers (spec: 41 MiB in the 48B model). */
export function slotBytes({ kda, layers }: ModelShape): number {
  const { headCount, keyDim, valueDim, convolutionTaps } = kda;
  const recurrent = headCount * keyDim * valueDim;
  const convolution = (convolutionTaps - 1) * headCount * (2 * keyDim + valueDim);
  return 4 * (recurrent + convolution) * layers.filter(({ mixer }) => mixer === "kda").length;
}

/** Latents of one page in bytes, all MLA layers. */
export function pageBytes({ mla, layers }: ModelShape, latentFormat: "f16" | "f32"): number {
  const width = mla.latentDim + mla.sharedKeyDim;
  const mlaLayers = layers.filter(({ mixer }) => mixer === "mla").length;
  return PAGE_TOKENS * width * (latentFormat === "f16" ? 2 : 4) * mlaLayers;
}

/** Most pages that a device can hold, see Device.bufferBytesMax. */
export function pagesMax(
  { mla }: ModelShape,
  latentFormat: "f16" | "f32",
  bufferBytesMax: number,
): number {
  const entryBytes = (latentFormat === "f16" ? 2 : 4) * 4 *
    Math.ceil((mla.latentDim + mla.sharedKeyDim) / 4);
  return Math.floor(bufferBytesMax / (PAGE_TOKENS * entryBytes));
}

/**
 * The capacity to configure a device with. Within a budget: the slots as asked, all else of it
 * becomes pages, as many as the device can hold. Throws DeviceError when one whole context does not
 * fit beside weights and slots.
 */
export function planCapacity(shape: ModelShape, options: CapacityOptions): Capacity {
  const { slots, contextTokens, latentFormat, pieceTokens } = options;
  const logitRowsMax = Math.floor(LOGIT_BYTES_MAX / (4 * shape.vocabularySize));
  const rows = Math.max(options.stepRows, slots + pieceTokens);
  const logitRowsMin = slots + pieceTokens;
  return {
    slots,
    pages: Math.min(
      pageCount(shape, options),
      pagesMax(shape, latentFormat, options.bufferBytesMax),
    ),
    pageTokens: PAGE_TOKENS,
    rows,
    logitRows: Math.max(logitRowsMin, Math.min(rows, logitRowsMax)),
    sequences: slots,
    pagesPerSequence: Math.ceil(contextTokens / PAGE_TOKENS),
    logitEdits: slots * Math.min(shape.vocabularySize, EDITS_MAX),
    latentFormat,
  };
}

/** Least budget for weights, slots and one whole context, with what a step needs. */
export function neededBytes(
  shape: ModelShape,
  options: Omit<CapacityOptions, "memoryBytes" | "pieceTokens" | "stepRows" | "bufferBytesMax">,
): number {
  const { slots, contextTokens, latentFormat, weightBytes } = options;
  const context = Math.ceil(contextTokens / PAGE_TOKENS) * pageBytes(shape, latentFormat);
  return Math.ceil((weightBytes + slots * slotBytes(shape) + context) / (1 - SCRATCH_SHARE));
}

function pageCount(shape: ModelShape, options: CapacityOptions): number {
  const { slots, contextTokens, latentFormat, memoryBytes, weightBytes } = options;
  const contextPages = Math.ceil(contextTokens / PAGE_TOKENS);
  if (memoryBytes === undefined) {
    const otherTokens = Math.min(contextTokens, POOL_TOKENS_PER_SLOT);
    // Each slot may leave its last page half empty.
    return Math.ceil((contextTokens + (slots - 1) * otherTokens) / PAGE_TOKENS) + slots;
  }
  const page = pageBytes(shape, latentFormat);
  const fixed = weightBytes + slots * slotBytes(shape);
  const free = Math.floor(memoryBytes * (1 - SCRATCH_SHARE)) - fixed;
  // More than all slots can use would be wasted.
  const pages = Math.min(Math.floor(free / Math.max(1, page)), slots * contextPages);
  if (pages >= contextPages) return pages;
  throw new DeviceError(
    `plan memory: wanted at least ${
      neededBytes(shape, options)
    } bytes for weights, ${slots} slots and a context of ` +
      `${contextTokens} tokens, found --memory ${memoryBytes}; ask for fewer --slots or a ` +
      "shorter --context",
  );
}
