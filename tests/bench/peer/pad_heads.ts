/**
 * A checkpoint whose KDA layers get heads of zeros until they are as many as MLA's: llama.cpp has
 * one number of heads for both. The added heads' queries, keys, values, gates and their columns of
 * the output projection are zero, so the model computes the same.
 */
import type { KdaShape, TensorSpec } from "../../../runtime/model/device.ts";
import { FolderFiles, readFully } from "../../../runtime/weights/folder_files.ts";
import { type ModelFolder, openModelFolder } from "../../../runtime/weights/model_folder.ts";
import type { PlannedPart } from "../../../runtime/weights/plan.ts";
import type { StoredTensor } from "../../../runtime/weights/safetensors.ts";
import { storedElementBytes } from "../../../runtime/weights/widen.ts";
import { encodeSafetensors } from "../../tools/checkpoint_writer.ts";

/** What grows of a weight when heads are added, by the key's last word. */
const ROWS = /\.kda\.(q|k|v|f_b|g_b|b|q_conv|k_conv|v_conv)$/;
const COLUMNS = /\.kda\.(o|a_log|dt_bias)$/;

interface Tensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: number[];
  readonly bytes: Uint8Array;
}

/**
 * The folder itself where both mixers have the same number of heads; else a folder `padded` with
 * the added ones. For models that fit in memory.
 */
export async function withEqualHeads(directory: string, padded: string): Promise<string> {
  const folder = await openModelFolder(directory);
  const { kda, mla } = folder.config.shape;
  if (kda.headCount === mla.headCount) return directory;
  if (kda.headCount > mla.headCount) {
    const found = `${kda.headCount} of KDA and ${mla.headCount} of MLA`;
    throw new Error(`add heads to "${directory}": wanted at most MLA's heads, found ${found}`);
  }
  Deno.mkdirSync(padded, { recursive: true });
  const config = JSON.parse(Deno.readTextFileSync(`${directory}/config.json`));
  config.linear_attn_config.num_heads = mla.headCount;
  Deno.writeTextFileSync(`${padded}/config.json`, JSON.stringify(config, null, 2));
  for (const name of ["tiktoken.model", "tokenizer_config.json", "generation_config.json"]) {
    Deno.copyFileSync(`${directory}/${name}`, `${padded}/${name}`);
  }
  const tensors = paddedTensors(folder, kda, mla.headCount);
  Deno.writeFileSync(`${padded}/model.safetensors`, encodeSafetensors(tensors));
  return padded;
}

function paddedTensors(folder: ModelFolder, kda: KdaShape, headCount: number): Tensor[] {
  const files = FolderFiles.open(folder.directory);
  const tensors: Tensor[] = [];
  for (const { spec, parts } of folder.tensors.weights) {
    const { key, rows, columns } = spec;
    const factor = headCount / kda.headCount;
    const size = {
      rows: ROWS.test(key) ? rows * factor : rows,
      columns: COLUMNS.test(key) ? columns * factor : columns,
    };
    for (const part of parts) tensors.push(...paddedPart(files, part, spec, size));
  }
  return tensors;
}

type Size = { readonly rows: number; readonly columns: number };

/** A weight with zeros for its new elements, and its scales with zeros for their blocks. */
function paddedPart(files: FolderFiles, part: PlannedPart, spec: TensorSpec, size: Size): Tensor[] {
  const { tensor, scale } = part;
  const weight = grown(files, tensor, spec, size);
  if (scale === null || spec.scale === null) return [weight];
  if (!scale.name.endsWith("_scale_inv")) {
    throw new Error(`add heads to "${tensor.name}": wanted one scale a block, found ${scale.name}`);
  }
  const { rowsPerScale, columnsPerScale } = spec.scale;
  const grid = ({ rows, columns }: Size) => ({
    rows: Math.ceil(rows / rowsPerScale),
    columns: Math.ceil(columns / columnsPerScale),
  });
  return [weight, grown(files, scale, grid(spec), grid(size))];
}

/** `tensor`, a matrix of size `from` whatever its rank, as one of size `to`. */
function grown(files: FolderFiles, tensor: StoredTensor, from: Size, to: Size): Tensor {
  const elementBytes = storedElementBytes(tensor.type);
  const stored = readTensor(files, tensor);
  const bytes = new Uint8Array(to.rows * to.columns * elementBytes);
  for (let row = 0; row < from.rows; row++) {
    const at = row * from.columns * elementBytes;
    const line = stored.subarray(at, at + from.columns * elementBytes);
    bytes.set(line, row * to.columns * elementBytes);
  }
  const [rows, columns] = [to.rows, to.columns];
  const shapes = [[], [columns], [rows, columns], [rows, 1, columns], [1, 1, columns, 1]];
  return { name: tensor.name, dtype: tensor.type, shape: shapes[tensor.shape.length]!, bytes };
}

function readTensor(files: FolderFiles, tensor: StoredTensor): Uint8Array {
  const bytes = new Uint8Array(tensor.byteLength);
  using file = files.openFile(tensor.file).file;
  if (!readFully(file, tensor.begin, bytes)) {
    throw new Error(`read tensor "${tensor.name}": wanted ${bytes.length} bytes, found the end`);
  }
  return bytes;
}
