/** Writes a model folder with the weights of synthetic.ts, in the layout that the loader reads. */

import { UsageError } from "../errors.ts";
import { SYNTH_SHARD_BYTES } from "../limits.ts";
import { parseModelConfig } from "../model/config.ts";
import type { TensorSpec, WeightFormat } from "../model/device.ts";
import { expectedWeights } from "./names.ts";
import { GROUP_COLUMNS } from "./packed.ts";
import type { WeightChoice } from "./resident.ts";
import { type SyntheticOptions, syntheticSpec, SyntheticWeights } from "./synthetic.ts";

/** One tensor of a file. */
interface Entry {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly make: (weights: SyntheticWeights) => Iterable<Uint8Array>;
}

/** Special ids above the tokens of tiktoken.model, as in the published vocabulary. */
const SPECIAL_TOKENS = 256;
const BYTE_TOKENS = 256;
const FP8_BLOCK = 128;

/**
 * Writes config, tokenizer files, shards and index to `directory`, which must not exist. `json` is
 * the model's config.json. `progress` gets the bytes written and in all. Throws ModelError for a
 * config that Kedge doesn't take, UsageError for one whose vocabulary is too small.
 */
export function writeSyntheticFolder(
  json: Record<string, unknown>,
  directory: string,
  choice: WeightChoice,
  options: SyntheticOptions,
  progress: (done: number, total: number) => void,
): number {
  const config = { ...json, ...quantizationConfig(choice) };
  const { shape } = parseModelConfig(config, "config.json");
  const tiktoken = tiktokenText(shape.vocabularySize - SPECIAL_TOKENS);
  const weights = new SyntheticWeights(shape, options);
  const entries = expectedWeights(shape).flatMap((expected) => {
    const spec = storableSpec(syntheticSpec(expected, choice));
    return expected.names.flatMap((name) => entriesOf(name, expected.shapes[0]!, spec));
  });
  Deno.mkdirSync(directory, { recursive: true });
  const text = (name: string, content: string) =>
    Deno.writeTextFileSync(`${directory}/${name}`, content);
  text("config.json", `${JSON.stringify(config, null, 2)}\n`);
  text("tokenizer_config.json", "{}\n");
  text("generation_config.json", "{}\n");
  text("tiktoken.model", tiktoken);
  const shards = splitShards(entries);
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  const index: Record<string, string> = {};
  let done = 0;
  shards.forEach((shard, number) => {
    const file = shardName(number, shards.length);
    for (const { name } of shard) index[name] = file;
    writeShard(`${directory}/${file}`, shard, weights, (bytes) => progress(done += bytes, total));
  });
  const metadata = { total_size: total };
  text("model.safetensors.index.json", JSON.stringify({ metadata, weight_map: index }));
  return total;
}

/** What a file's config.json says of its weights. */
function quantizationConfig(choice: WeightChoice): Record<string, unknown> {
  if (choice === "bf16") return {};
  if (choice === "fp8") {
    const weight_block_size = [FP8_BLOCK, FP8_BLOCK];
    return { quantization_config: { quant_method: "fp8", fmt: "e4m3", weight_block_size } };
  }
  const group = (num_bits: number, format: string) => ({
    format,
    targets: ["Linear"],
    weights: { num_bits, type: "int", strategy: "group", group_size: 32, symmetric: true },
  });
  const int8 = group(8, "int-quantized");
  const config_groups = choice === "q8"
    ? { group_0: int8 }
    : { group_0: group(4, "pack-quantized"), group_1: int8 };
  const format = choice === "q8" ? "int-quantized" : "mixed-precision";
  return { quantization_config: { quant_method: "compressed-tensors", format, config_groups } };
}

/** A file has integers only in whole groups. */
function storableSpec(spec: TensorSpec): TensorSpec {
  const grouped = spec.format === "q8" || spec.format === "q4";
  return grouped && spec.columns % GROUP_COLUMNS !== 0 ? { ...spec, format: "bf16" } : spec;
}

const TYPES: Partial<Record<WeightFormat, [type: string, bytes: number]>> = {
  f32: ["F32", 4],
  bf16: ["BF16", 2],
  fp8: ["F8_E4M3", 1],
  q8: ["I8", 1],
};

/** The tensors that hold one matrix. */
function entriesOf(name: string, shape: readonly number[], spec: TensorSpec): Entry[] {
  const { format, rows, columns } = spec;
  const count = rows * columns;
  const make = (weights: SyntheticWeights) => weights.elements(spec);
  const groups = columns / GROUP_COLUMNS;
  const groupScale: Entry = {
    name: `${name}_scale`,
    type: "F16",
    shape: [rows, groups],
    bytes: 2 * rows * groups,
    make: (weights) => [unpadded(weights.groupScales(spec), rows, groups)],
  };
  if (format === "q4") {
    const packed = [rows, columns / 8];
    const size = new Uint8Array(BigInt64Array.of(BigInt(rows), BigInt(columns)).buffer);
    return [
      { name: `${name}_packed`, type: "I32", shape: packed, bytes: count / 2, make },
      groupScale,
      { name: `${name}_shape`, type: "I64", shape: [2], bytes: 16, make: () => [size] },
    ];
  }
  const [type, elementBytes] = TYPES[format]!;
  const elements: Entry = { name, type, shape, bytes: count * elementBytes, make };
  if (format === "q8") return [elements, groupScale];
  if (format !== "fp8") return [elements];
  const grid = [Math.ceil(rows / FP8_BLOCK), Math.ceil(columns / FP8_BLOCK)];
  return [elements, {
    name: `${name}_scale_inv`,
    type: "F32",
    shape: grid,
    bytes: 4 * grid[0]! * grid[1]!,
    make: (weights) => [new Uint8Array(weights.gridScales(spec).buffer)],
  }];
}

/** Rows of scales without what devices want behind an odd count. */
function unpadded(scales: Uint8Array, rows: number, groups: number): Uint8Array {
  const [stride, row] = [scales.length / rows, 2 * groups];
  if (stride === row) return scales;
  const packed = new Uint8Array(rows * row);
  for (let r = 0; r < rows; r++) {
    packed.set(scales.subarray(r * stride, r * stride + row), r * row);
  }
  return packed;
}

function splitShards(entries: readonly Entry[]): Entry[][] {
  const shards: Entry[][] = [[]];
  let size = 0;
  for (const entry of entries) {
    if (size > 0 && size + entry.bytes > SYNTH_SHARD_BYTES) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)!.push(entry);
    size += entry.bytes;
  }
  return shards;
}

function shardName(shard: number, shards: number): string {
  const digits = (n: number) => String(n).padStart(5, "0");
  return `model-${digits(shard + 1)}-of-${digits(shards)}.safetensors`;
}

function writeShard(
  path: string,
  entries: readonly Entry[],
  weights: SyntheticWeights,
  wrote: (bytes: number) => void,
): void {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const { name, type, shape, bytes } of entries) {
    header[name] = { dtype: type, shape, data_offsets: [end, end += bytes] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(BigUint64Array.of(BigInt(json.length)).buffer);
  using file = Deno.openSync(path, { write: true, createNew: true });
  const write = (bytes: Uint8Array) => {
    for (let sent = 0; sent < bytes.length;) sent += file.writeSync(bytes.subarray(sent));
  };
  write(length);
  write(json);
  for (const entry of entries) {
    for (const piece of entry.make(weights)) write(piece);
    wrote(entry.bytes);
  }
}

/** `count` tokens: the bytes, then words of 2, 3, 4 ... letters, each one letter longer than one
 * before it, so that merges reach all of them. Throws UsageError for fewer than the bytes. */
function tiktokenText(count: number): string {
  if (count < BYTE_TOKENS) {
    const least = BYTE_TOKENS + SPECIAL_TOKENS;
    throw new UsageError(
      `make a tokenizer: wanted a vocabulary of at least ${least}, found ${count + SPECIAL_TOKENS}`,
    );
  }
  const lines: string[] = [];
  const add = (binary: string) => lines.push(`${btoa(binary)} ${lines.length}\n`);
  for (let byte = 0; byte < BYTE_TOKENS; byte++) add(String.fromCharCode(byte));
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  for (let words = letters; lines.length < count;) {
    words = words.flatMap((word) => letters.map((letter) => word + letter));
    for (const word of words.slice(0, count - lines.length)) add(word);
  }
  return lines.join("");
}
