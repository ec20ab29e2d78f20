/** A checkpoint folder that Kedge reads, written again as a GGUF. */
import type { MlaShape, TensorSpec } from "../../../runtime/model/device.ts";
import { FolderFiles, readFully } from "../../../runtime/weights/folder_files.ts";
import { type ModelFolder, openModelFolder } from "../../../runtime/weights/model_folder.ts";
import type { PlannedPart } from "../../../runtime/weights/plan.ts";
import type { StoredTensor } from "../../../runtime/weights/safetensors.ts";
import { widen } from "../../../runtime/weights/widen.ts";
import { decodeE4m3 } from "../../reference/formats.ts";
import { encodeElements } from "./blocks.ts";
import { writeGguf } from "./gguf.ts";
import {
  joinMetadata,
  modelMetadata,
  type Quantisation,
  type TensorLayout,
  tensorLayouts,
} from "./layout.ts";
import { checkpointVocabulary } from "./vocabulary.ts";

const E4M3 = Float32Array.from({ length: 256 }, (_, bits) => decodeE4m3(bits));

/** Writes the GGUF of a model folder and returns its size in bytes. Rejects with ModelError. */
export async function convertCheckpoint(
  directory: string,
  path: string,
  quantisation: Quantisation,
): Promise<number> {
  const folder = await openModelFolder(directory);
  const { config, tokenizer, tensors } = folder;
  const layouts = tensorLayouts(config.shape, quantisation);
  const metadata = joinMetadata(
    modelMetadata(config, folder.id, quantisation),
    checkpointVocabulary(tokenizer, config.shape.vocabularySize, config),
  );
  const weights = new Map(tensors.weights.map((weight) => [weight.spec.key, weight]));
  using reader = new WeightReader(folder);
  function* elements({ key, transform, type }: TensorLayout) {
    const { spec, parts } = weights.get(key)!;
    if (spec.format === "q4" || spec.format === "q8") {
      throw new Error(`convert "${directory}": wanted floats in "${key}", found ${spec.format}`);
    }
    for (const part of parts) {
      const values = reader.read(part, spec);
      yield encodeElements(transformed(values, transform, config.shape.mla), type);
    }
  }
  return writeGguf(path, metadata, layouts, (index) => elements(layouts[index]!));
}

/** Reads weights as f32: stored values exactly, fp8 ones times their scales. */
class WeightReader {
  private readonly files: FolderFiles;
  private readonly open = new Map<string, Deno.FsFile>();

  constructor(folder: ModelFolder) {
    this.files = FolderFiles.open(folder.directory);
  }

  [Symbol.dispose](): void {
    for (const file of this.open.values()) file.close();
  }

  /** One matrix of a weight, row-major. */
  read({ tensor, scale }: PlannedPart, { columns, scale: blocks }: TensorSpec): Float32Array {
    const bytes = this.bytes(tensor);
    if (scale === null || blocks === null) return widen(bytes, tensor.type);
    const scales = widen(this.bytes(scale), scale.type);
    const gridColumns = Math.ceil(columns / blocks.columnsPerScale);
    const values = new Float32Array(bytes.length);
    for (let index = 0; index < bytes.length;) {
      const row = Math.floor(index / columns / blocks.rowsPerScale);
      for (let column = 0; column < columns; column++, index++) {
        const at = row * gridColumns + Math.floor(column / blocks.columnsPerScale);
        values[index] = E4M3[bytes[index]!]! * scales[at]!;
      }
    }
    return values;
  }

  private bytes(tensor: StoredTensor): Uint8Array {
    let file = this.open.get(tensor.file);
    if (file === undefined) {
      file = this.files.openFile(tensor.file).file;
      this.open.set(tensor.file, file);
    }
    const bytes = new Uint8Array(tensor.byteLength);
    if (!readFully(file, tensor.begin, bytes)) {
      throw new Error(`read tensor "${tensor.name}": wanted ${bytes.length} bytes, found the end`);
    }
    return bytes;
  }
}

/** What llama.cpp keeps in place of a weight. */
export function transformed(
  values: Float32Array,
  transform: TensorLayout["transform"],
  mla: MlaShape,
): Float32Array {
  switch (transform) {
    case "same":
      return values;
    case "negative exp":
      return values.map((value) => -Math.exp(value));
    case "keys transposed":
      return transposedKeys(values, mla);
    case "values":
      return valueRows(values, mla);
  }
}

/** [heads (nope + value), latent] to [heads, latent, nope]. */
function transposedKeys(values: Float32Array, mla: MlaShape): Float32Array {
  const { headCount, latentDim, nopeDim, valueDim } = mla;
  const keys = new Float32Array(headCount * latentDim * nopeDim);
  for (let head = 0; head < headCount; head++) {
    const from = head * (nopeDim + valueDim) * latentDim;
    const to = head * latentDim * nopeDim;
    for (let row = 0; row < nopeDim; row++) {
      for (let column = 0; column < latentDim; column++) {
        keys[to + column * nopeDim + row] = values[from + row * latentDim + column]!;
      }
    }
  }
  return keys;
}

/** [heads (nope + value), latent] to [heads, value, latent]. */
function valueRows(values: Float32Array, mla: MlaShape): Float32Array {
  const { headCount, latentDim, nopeDim, valueDim } = mla;
  const size = valueDim * latentDim;
  const rows = new Float32Array(headCount * size);
  for (let head = 0; head < headCount; head++) {
    const from = (head * (nopeDim + valueDim) + nopeDim) * latentDim;
    rows.set(values.subarray(from, from + size), head * size);
  }
  return rows;
}
