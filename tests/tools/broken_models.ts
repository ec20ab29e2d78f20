/**
 * Broken model folders: how each is made out of a valid one, and what its refusal says. Used by the
 * loader's tests and by the command line's.
 */

import { BROKEN_CONFIGS, BROKEN_QUANTIZATIONS } from "./broken_configs.ts";
import { BROKEN_HEADERS, BROKEN_INDEXES } from "./broken_headers.ts";
import type { BrokenModel } from "./broken_model.ts";
import { BROKEN_TENSORS } from "./broken_tensors.ts";
import { BROKEN_FOLDERS, BROKEN_TEXTS } from "./broken_texts.ts";

export { type BrokenModel, writeBrokenModel } from "./broken_model.ts";

/** Every case, names unique. */
export const BROKEN_MODELS: readonly BrokenModel[] = [
  ...BROKEN_CONFIGS,
  ...BROKEN_QUANTIZATIONS,
  ...BROKEN_TEXTS,
  ...BROKEN_TENSORS,
  ...BROKEN_HEADERS,
  ...BROKEN_INDEXES,
  ...BROKEN_FOLDERS,
];
