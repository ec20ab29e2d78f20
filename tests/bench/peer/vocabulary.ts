/**
 * The tokenizer's keys of a GGUF: a byte-level BPE in GPT-2's spelling with the pre-tokenizer
 * `kimi-k2`, from a checkpoint's tiktoken.model or made up for a synthetic model.
 */
import type { TokenizerFiles } from "../../../runtime/weights/tokenizer_files.ts";
import type { GgufValue } from "./gguf.ts";

/** llama.cpp's kinds of tokens. */
const NORMAL = 1;
const CONTROL = 3;
const UNUSED = 5;

export interface SpecialIds {
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
}

/** One token's bytes as a string of one character a byte (latin1). */
type ByteText = string;

/** The keys for a checkpoint's tokenizer; ids above its special tokens become unused ones. */
export function checkpointVocabulary(
  tokenizer: TokenizerFiles,
  vocabularySize: number,
  ids: SpecialIds,
): Map<string, GgufValue> {
  const byRank = readRanks(tokenizer.tiktokenModel);
  const ranks = new Map(byRank.map((bytes, rank) => [bytes, rank]));
  const merges = byRank.flatMap((bytes) => {
    if (bytes.length < 2) return [];
    const parts = lastMerge(bytes, ranks);
    return parts === null ? [] : [mergeText(parts)];
  });
  const specials = new Map(tokenizer.specials.map(({ id, text }) => [id, text]));
  return vocabularyKeys(byRank, merges, specials, vocabularySize, ids);
}

/**
 * Made-up tokens for a model without a tokenizer: 256 bytes, all pairs of them, then triples, and
 * Kimi's names for the specials in the last 256 ids. Every token but the bytes is one merge.
 */
export function syntheticVocabulary(
  vocabularySize: number,
  ids: SpecialIds,
): Map<string, GgufValue> {
  const count = vocabularySize - 256;
  const byRank: ByteText[] = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
  const merges: string[] = [];
  for (let stem = 0; byRank.length < count; stem++) {
    for (let byte = 0; byte < 256 && byRank.length < count; byte++) {
      merges.push(mergeText([byRank[stem]!, byRank[byte]!]));
      byRank.push(byRank[stem]! + byRank[byte]!);
    }
  }
  const specials = new Map([
    [ids.bosId, "[BOS]"],
    [ids.bosId + 1, "[EOS]"],
    [ids.eosId, "<|im_end|>"],
    [ids.padId, "[PAD]"],
  ]);
  return vocabularyKeys(byRank, merges, specials, vocabularySize, ids);
}

function vocabularyKeys(
  byRank: readonly ByteText[],
  merges: readonly string[],
  specials: ReadonlyMap<number, string>,
  vocabularySize: number,
  ids: SpecialIds,
): Map<string, GgufValue> {
  const tokens: string[] = [];
  const types: number[] = [];
  for (let id = 0; id < vocabularySize; id++) {
    const special = specials.get(id);
    if (id < byRank.length) {
      tokens.push(spell(byRank[id]!));
      types.push(NORMAL);
    } else {
      tokens.push(special ?? `[PAD${id}]`);
      types.push(special === undefined ? UNUSED : CONTROL);
    }
  }
  return new Map<string, GgufValue>([
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "string", value: "kimi-k2" }],
    ["tokenizer.ggml.tokens", { type: "strings", value: tokens }],
    ["tokenizer.ggml.token_type", { type: "i32s", value: types }],
    ["tokenizer.ggml.merges", { type: "strings", value: merges }],
    ["tokenizer.ggml.bos_token_id", { type: "u32", value: ids.bosId }],
    ["tokenizer.ggml.eos_token_id", { type: "u32", value: ids.eosId }],
    ["tokenizer.ggml.padding_token_id", { type: "u32", value: ids.padId }],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
  ]);
}

/** Lines `base64 rank`, already checked by the model folder. */
function readRanks(tiktokenModel: Uint8Array): ByteText[] {
  const byRank: ByteText[] = [];
  for (const line of new TextDecoder("latin1").decode(tiktokenModel).split("\n")) {
    const [base64, rank] = line.trimEnd().split(" ");
    if (base64 && rank) byRank[Number(rank)] = atob(base64);
  }
  return byRank;
}

/**
 * The two parts whose merge makes a token: what is left when its bytes are merged by all lower
 * ranks. Null where more than two are left, a token that no merge reaches.
 */
export function lastMerge(
  bytes: ByteText,
  ranks: ReadonlyMap<ByteText, number>,
): [ByteText, ByteText] | null {
  const limit = ranks.get(bytes)!;
  const parts = [...bytes];
  while (parts.length > 2) {
    let best = limit;
    let at = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = ranks.get(parts[i]! + parts[i + 1]!) ?? limit;
      if (rank < best) [best, at] = [rank, i];
    }
    if (at < 0) return null;
    parts.splice(at, 2, parts[at]! + parts[at + 1]!);
  }
  return [parts[0]!, parts[1]!];
}

function mergeText([left, right]: readonly [ByteText, ByteText]): string {
  return `${spell(left)} ${spell(right)}`;
}

/** GPT-2's spelling: printable bytes of latin1 as themselves, the others from U+0100 on. */
const SPELLING: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
})();

function spell(bytes: ByteText): string {
  return Array.from(bytes, (character) => SPELLING[character.charCodeAt(0)]).join("");
}
