/** Damaged safetensors files and indexes. */

import { AT_Q0, atQ0, broken, type BrokenModel, encode, file, Q0, SINGLE } from "./broken_model.ts";
import {
  type DraftOptions,
  encodeSafetensors,
  joinSafetensors,
  shardName,
} from "./checkpoint_writer.ts";

const INDEX = "model.safetensors.index.json";

/** The single weight file's bytes, changed. */
function weights(
  name: string,
  expected: RegExp,
  change: (bytes: Uint8Array) => Uint8Array,
): BrokenModel {
  return broken(name, expected, {
    files: (files) => files.set(SINGLE, change(files.get(SINGLE)!)),
  });
}

type Entry = { dtype: unknown; shape: unknown; data_offsets: [number, number] };

/** The header's JSON, changed. */
function header(
  name: string,
  expected: RegExp,
  change: (json: Record<string, Entry>) => unknown,
): BrokenModel {
  return weights(name, expected, (bytes) => {
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const json = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const changed = change(json);
    const text = typeof changed === "string" ? changed : JSON.stringify(json);
    return joinSafetensors(text, [bytes.subarray(8 + length)]);
  });
}

function withLength(bytes: Uint8Array, length: bigint): Uint8Array {
  new DataView(bytes.buffer).setBigUint64(0, length, true);
  return bytes;
}

const HEADER = /^read header of "model\.safetensors": wanted /;

export const BROKEN_HEADERS: readonly BrokenModel[] = [
  file(SINGLE, undefined, /wanted "model\.safetensors" or ".*index\.json", found none$/, "missing"),
  file(SINGLE, "", /^read header of .*: wanted at least 8 bytes, found 0$/, "empty"),
  file(SINGLE, "12345", /^read header of .*: wanted at least 8 bytes, found 5$/, "of 5 bytes"),
  weights("header length 2^64 - 1", HEADER, (b) => withLength(b, 2n ** 64n - 1n)),
  weights("header length 2^63", HEADER, (b) => withLength(b, 2n ** 63n)),
  weights("header length 0", HEADER, (b) => withLength(b, 0n)),
  weights("header length beyond the file", HEADER, (b) => withLength(b, BigInt(b.length))),
  weights("header one byte short", HEADER, (b) => {
    return withLength(b, new DataView(b.buffer).getBigUint64(0, true) - 1n);
  }),
  weights("file cut short", /wanted \d+ bytes as .*, found \d+: the file is cut short$/, (b) => {
    return b.subarray(0, b.length - 7);
  }),
  weights("file with a tail", /wanted \d+ bytes as .*, found \d+: bytes after the last/, (b) => {
    return Uint8Array.from([...b, 0]);
  }),
  header("header an array", HEADER, () => "[]"),
  header("header no JSON", HEADER, () => "{]"),
  header("header with a tensor twice", /wanted key "a" once, found it twice$/, () => {
    const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    return `{"a":${entry},"a":${entry}}`;
  }),
  header("metadata not strings", /wanted "__metadata__" an object of strings/, (json) => {
    json.__metadata__ = { a: 1 } as unknown as Entry;
  }),
  header("dtype unknown", atQ0('wanted "dtype" one of .*, found "Q4"$'), (json) => {
    json[Q0]!.dtype = "Q4";
  }),
  header("shape negative", atQ0('wanted "shape" .*, found \\[-16,20\\]$'), (json) => {
    json[Q0]!.shape = [-16, 20];
  }),
  header("shape fractional", atQ0('wanted "shape" .*, found \\[1\\.5,20\\]$'), (json) => {
    json[Q0]!.shape = [1.5, 20];
  }),
  header("shape overflows", atQ0("wanted a whole number of bytes and below 2\\^53"), (json) => {
    json[Q0]!.shape = [2 ** 32, 2 ** 32, 0];
  }),
  header("offsets lie", atQ0("wanted 640 bytes for BF16 \\[16, 20\\], found .*$"), (json) => {
    json[Q0]!.data_offsets[1] += 64;
  }),
  header("offsets reversed", atQ0("wanted 640 bytes for .*, found data_offsets"), (json) => {
    json[Q0]!.data_offsets.reverse();
  }),
  header("overlap", atQ0("wanted data from byte \\d+, found \\d+, an overlap$"), (json) => {
    const offsets = json[Q0]!.data_offsets;
    json[Q0]!.data_offsets = [offsets[0] - 2, offsets[1] - 2];
  }),
  header("gap", /: wanted data from byte \d+, found \d+, a gap$/, (json) => {
    delete json[Q0];
  }),
  header("unknown key in an entry", atQ0('wanted keys .*, found "stride"$'), (json) => {
    (json[Q0] as unknown as Record<string, unknown>).stride = 1;
  }),
  header(
    "name with a line break",
    /"a\\u000ab" in "model\.safetensors": wanted an object/,
    (json) => {
      json["a\nb"] = 1 as unknown as Entry;
    },
  ),
];

const SHARDED: DraftOptions = { shards: 3 };
const FIRST = shardName(0, 3);

function shards(
  name: string,
  expected: RegExp,
  change: (files: Map<string, Uint8Array>) => void,
): BrokenModel {
  return broken(name, expected, { options: SHARDED, files: change });
}

/** The index's weight_map, changed. */
function index(
  name: string,
  expected: RegExp,
  change: (map: Record<string, unknown>) => void,
): BrokenModel {
  return shards(name, expected, (files) => {
    const json = JSON.parse(new TextDecoder().decode(files.get(INDEX)!));
    change(json.weight_map);
    files.set(INDEX, encode(JSON.stringify(json)));
  });
}

const plainName = /q_proj\.weight" in "model\.safetensors\.index\.json": wanted a plain file name/;

export const BROKEN_INDEXES: readonly BrokenModel[] = [
  shards(
    "shard missing",
    /^read "model-00001-of-00003\.safetensors" in .*: .* found none$/,
    (f) => {
      f.delete(FIRST);
    },
  ),
  shards("index without weight_map", /wanted "weight_map" an object, found none$/, (files) => {
    files.set(INDEX, encode("{}"));
  }),
  shards("index empty", /wanted 1 to 1024 files in "weight_map", found 0$/, (files) => {
    files.set(INDEX, encode('{"weight_map": {}}'));
  }),
  shards("index and single file", /wanted one checkpoint, found "model\.safetensors" and/, (f) => {
    f.set(SINGLE, encodeSafetensors([]));
  }),
  index("shard name with ..", plainName, (map) => map[Q0] = "../model.safetensors"),
  index("shard name absolute", plainName, (map) => map[Q0] = "/etc/model.safetensors"),
  index("shard name with backslash", plainName, (map) => map[Q0] = "a\\b.safetensors"),
  index("shard name of another kind", plainName, (map) => map[Q0] = "model.bin"),
  index("shard name a number", plainName, (map) => map[Q0] = 1),
  index("tensor in another shard", /index\.json": wanted it in ".*", found it in ".*"$/, (map) => {
    map[Q0] = map[Q0] === FIRST ? shardName(1, 3) : FIRST;
  }),
  index("tensor only in the index", /"ghost" in .*: wanted it in .*, found none in any/, (map) => {
    map.ghost = FIRST;
  }),
  index(
    "tensor not in the index",
    atAnyShard('wanted it in ".*index\\.json", found none$'),
    (m) => {
      delete m[Q0];
    },
  ),
  broken("tensor in two shards", atAnyShard("wanted each tensor in one file, found it in"), {
    options: SHARDED,
    draft: (draft) => {
      const found = draft.tensors.find(({ name }) => name === Q0)!;
      draft.tensors.push({ ...found, shard: (found.shard + 1) % 3 });
    },
  }),
];

function atAnyShard(rest: string): RegExp {
  return new RegExp(`${AT_Q0}"model-0000\\d-of-00003\\.safetensors": ${rest}`);
}
