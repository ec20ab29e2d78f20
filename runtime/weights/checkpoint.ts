/**
 * The safetensors files of a model folder as one table of tensors: `model.safetensors`, or shards
 * listed by `model.safetensors.index.json`.
 */

import { MAX_INDEX_FILE_BYTES, MAX_SHARDS } from "../limits.ts";
import { type FolderFiles, readFully, reason } from "./folder_files.ts";
import { isObject, parseJsonObject } from "../json_text.ts";
import { LENGTH_BYTES, parseHeader, readHeaderLength, type StoredTensor } from "./safetensors.ts";
import { quote, refuse, show } from "../wording.ts";

export interface Checkpoint {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Size of each file when its header was checked. */
  readonly fileBytes: ReadonlyMap<string, number>;
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** No separators, so a name can't leave the folder. */
const SHARD_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.safetensors$/;

/** Reads every header and checks it against the index. Throws ModelError. */
export function openCheckpoint(files: FolderFiles): Checkpoint {
  if (!files.has(INDEX)) {
    if (!files.has(SINGLE)) {
      refuse(`open model folder ${quote(files.directory)}`, `"${SINGLE}" or "${INDEX}"`, "none");
    }
    return readFiles(files, [SINGLE]);
  }
  const index = readIndex(files);
  const names = [...new Set(index.values())].sort();
  if (files.has(SINGLE) && !names.includes(SINGLE)) {
    const found = `"${SINGLE}" and "${INDEX}" that doesn't list it`;
    refuse(`open model folder ${quote(files.directory)}`, "one checkpoint", found);
  }
  const checkpoint = readFiles(files, names);
  checkIndex(index, checkpoint);
  return checkpoint;
}

/** Tensor name -> file name. */
function readIndex(files: FolderFiles): Map<string, string> {
  const action = `read "${INDEX}"`;
  const json = parseJsonObject(files.readAll(INDEX, MAX_INDEX_FILE_BYTES), action);
  const map = json.weight_map;
  if (!isObject(map)) return refuse(action, `"weight_map" an object`, show(map));
  const index = new Map<string, string>();
  const names = new Set<string>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !SHARD_NAME.test(file)) {
      const wanted = "a plain file name ending in .safetensors";
      return refuse(`read tensor ${quote(tensor)} in "${INDEX}"`, wanted, show(file));
    }
    index.set(tensor, file);
    names.add(file);
  }
  if (names.size === 0 || names.size > MAX_SHARDS) {
    refuse(action, `1 to ${MAX_SHARDS} files in "weight_map"`, `${names.size}`);
  }
  return index;
}

function readFiles(files: FolderFiles, names: readonly string[]): Checkpoint {
  const tensors = new Map<string, StoredTensor>();
  const fileBytes = new Map<string, number>();
  for (const name of names) {
    const { size, stored } = readHeader(files, name);
    fileBytes.set(name, size);
    for (const tensor of stored) {
      const other = tensors.get(tensor.name);
      if (other !== undefined) {
        const action = `read tensor ${quote(tensor.name)} in ${quote(name)}`;
        refuse(action, "each tensor in one file", `it in ${quote(other.file)} too`);
      }
      tensors.set(tensor.name, tensor);
    }
  }
  return { tensors, fileBytes };
}

function readHeader(files: FolderFiles, name: string): { size: number; stored: StoredTensor[] } {
  const { file, size } = files.openFile(name);
  try {
    const prefix = new Uint8Array(Math.min(LENGTH_BYTES, size));
    const complete = readFully(file, 0, prefix);
    const header = new Uint8Array(readHeaderLength(prefix, size, name));
    if (!complete || !readFully(file, LENGTH_BYTES, header)) {
      refuse(`read header of ${quote(name)}`, `${header.length} bytes`, "the end of the file");
    }
    return { size, stored: parseHeader(header, size, name) };
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.BadResource) {
      refuse(`read ${quote(name)}`, "a readable file", reason(error));
    }
    throw error;
  } finally {
    file.close();
  }
}

/** The index and the headers name the same tensors in the same files. */
function checkIndex(index: ReadonlyMap<string, string>, checkpoint: Checkpoint): void {
  for (const [name, file] of index) {
    const found = checkpoint.tensors.get(name)?.file;
    if (found === file) continue;
    const where = found === undefined ? "none in any file" : `it in ${quote(found)}`;
    refuse(`read tensor ${quote(name)} in "${INDEX}"`, `it in ${quote(file)}`, where);
  }
  for (const tensor of checkpoint.tensors.values()) {
    if (index.has(tensor.name)) continue;
    const action = `read tensor ${quote(tensor.name)} in ${quote(tensor.file)}`;
    refuse(action, `it in "${INDEX}"`, "none");
  }
}
