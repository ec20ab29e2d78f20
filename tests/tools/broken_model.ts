/** What a broken model folder is, and the words to describe one. */

import {
  type Draft,
  draftModel,
  type DraftOptions,
  encodeDraft,
  writeFiles,
} from "./checkpoint_writer.ts";

export interface BrokenModel {
  readonly name: string;
  /** What the whole message has to match. */
  readonly expected: RegExp;
  /** When the fault shows: opening the folder (before any upload) or loading its data. */
  readonly stage: "open" | "load";
  readonly options: DraftOptions;
  /** Changes the folder before it becomes bytes. */
  readonly draft?: (draft: Draft) => void;
  /** Changes the folder's files. */
  readonly files?: (files: Map<string, Uint8Array>) => void;
  /** Changes the folder on disk. */
  readonly disk?: (directory: string) => void;
}

type Change = Omit<Partial<BrokenModel>, "name" | "expected">;

export const SINGLE = "model.safetensors";
/** A tensor for the cases that need any. */
export const Q0 = "model.layers.0.self_attn.q_proj.weight";
/** Begin of a message about it. */
export const AT_Q0 = '^read tensor "model\\.layers\\.0\\.self_attn\\.q_proj\\.weight" in ';
export const atQ0 = (rest: string) => new RegExp(`${AT_Q0}"model\\.safetensors": ${rest}`);

/** Writes the folder of one case. */
export function writeBrokenModel(model: BrokenModel, directory: string): void {
  const draft = draftModel(model.options);
  model.draft?.(draft);
  const files = encodeDraft(draft);
  model.files?.(files);
  writeFiles(directory, files);
  model.disk?.(directory);
}

/** One case; faults show on opening unless `change` says otherwise. */
export function broken(name: string, expected: RegExp, change: Change): BrokenModel {
  return { stage: "open", options: {}, ...change, name, expected };
}

export function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A file replaced by a text, or removed. */
export function file(
  name: string,
  text: string | undefined,
  expected: RegExp,
  label: string,
): BrokenModel {
  return broken(`${name} ${label}`, expected, {
    files: (files) => {
      if (text === undefined) files.delete(name);
      else files.set(name, encode(text));
    },
  });
}
