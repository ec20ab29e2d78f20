/** tiktoken.model, tokenizer_config.json and generation_config.json of a model folder. */

import {
  MAX_CONFIG_FILE_BYTES,
  MAX_EOS_IDS,
  MAX_SPECIAL_TOKEN_CHARACTERS,
  MAX_TIKTOKEN_FILE_BYTES,
  MAX_TOKENIZER_CONFIG_FILE_BYTES,
} from "../limits.ts";
import type { ModelConfig } from "../model/config.ts";
import type { FolderFiles } from "./folder_files.ts";
import { isObject, parseJsonObject } from "../json_text.ts";
import { quote, refuse, show } from "../wording.ts";

export interface SpecialToken {
  readonly id: number;
  readonly text: string;
  /** Whether decoding may skip it; the tool markers may not be skipped. */
  readonly special: boolean;
}

export interface TokenizerFiles {
  /** The file's bytes: lines `base64 rank`. */
  readonly tiktokenModel: Uint8Array;
  /** Tokens of tiktoken.model; special ids begin here. */
  readonly rankCount: number;
  /** By ascending id. */
  readonly specials: readonly SpecialToken[];
}

/** What a request gets that doesn't say otherwise. Ranges as in engine/engine.ts. */
export interface GenerationDefaults {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  /** Ids that end a generation, ascending. */
  readonly eosIds: readonly number[];
}

const TIKTOKEN = "tiktoken.model";
const TOKENIZER_CONFIG = "tokenizer_config.json";
const GENERATION_CONFIG = "generation_config.json";

/**
 * Kimi's markers by distance from the first special id. An early release of the checkpoint lacks
 * some of the names, so ids that tokenizer_config.json doesn't name get theirs from here.
 */
const KIMI_MARKERS: readonly (readonly [offset: number, text: string, special: boolean])[] = [
  [0, "[BOS]", true],
  [1, "[EOS]", true],
  [2, "<|im_end|>", true],
  [3, "<|im_user|>", true],
  [4, "<|im_assistant|>", true],
  [6, "<|start_header_id|>", true],
  [7, "<|end_header_id|>", true],
  [9, "[EOT]", true],
  [10, "<|im_system|>", true],
  [11, "<|tool_calls_section_begin|>", false],
  [12, "<|tool_calls_section_end|>", false],
  [13, "<|tool_call_begin|>", false],
  [14, "<|tool_call_argument_begin|>", false],
  [15, "<|tool_call_end|>", false],
  [17, "<|im_middle|>", true],
  [254, "[UNK]", true],
  [255, "[PAD]", true],
];

/** Without these no conversation can be written. */
const CHAT_MARKERS = [
  "<|im_end|>",
  "<|im_user|>",
  "<|im_assistant|>",
  "<|im_system|>",
  "<|im_middle|>",
];

/** Where generation_config.json has none, as in the published model: what suits its kind. */
const DEFAULT_TEMPERATURE = 0.6;

/** Reads and checks the tokenizer's two files. Throws ModelError. */
export function readTokenizerFiles(files: FolderFiles, config: ModelConfig): TokenizerFiles {
  const tiktokenModel = files.readAll(TIKTOKEN, MAX_TIKTOKEN_FILE_BYTES);
  const { vocabularySize } = config.shape;
  const rankCount = countRanks(tiktokenModel);
  if (rankCount > vocabularySize) {
    refuse(`read "${TIKTOKEN}"`, `at most ${vocabularySize} tokens (vocab_size)`, `${rankCount}`);
  }
  const specials = readSpecials(files, rankCount, vocabularySize);
  return { tiktokenModel, rankCount, specials };
}

/** Lines of `base64 rank`; the ranks are 0, 1, 2 ... in any order, and every byte is a token. */
function countRanks(bytes: Uint8Array): number {
  const lines = new TextDecoder("latin1").decode(bytes).split("\n");
  if (lines.at(-1) === "") lines.pop();
  const seen = new Uint8Array(lines.length);
  const tokens = new Set<string>();
  lines.forEach((line, index) => {
    const action = `read line ${index + 1} of "${TIKTOKEN}"`;
    const match = /^([A-Za-z0-9+/]+={0,2}) (\d{1,10})\r?$/.exec(line);
    if (match === null || match[1]!.length % 4 !== 0) {
      return refuse(action, "base64, a space, a rank", quote(line));
    }
    const rank = Number(match[2]);
    if (rank >= lines.length) refuse(action, `a rank below ${lines.length}`, `${rank}`);
    if (seen[rank] === 1) refuse(action, "each rank once", `${rank} twice`);
    if (tokens.has(match[1]!)) refuse(action, "each token once", `${match[1]} twice`);
    seen[rank] = 1;
    tokens.add(match[1]!);
  });
  for (let byte = 0; byte < 256; byte++) {
    if (tokens.has(btoa(String.fromCharCode(byte)))) continue;
    refuse(`read "${TIKTOKEN}"`, "every single byte as a token", `none for byte ${byte}`);
  }
  return lines.length;
}

function readSpecials(files: FolderFiles, base: number, vocabularySize: number): SpecialToken[] {
  const action = `read "${TOKENIZER_CONFIG}"`;
  const bytes = files.readAll(TOKENIZER_CONFIG, MAX_TOKENIZER_CONFIG_FILE_BYTES);
  const named = parseJsonObject(bytes, action).added_tokens_decoder ?? {};
  if (!isObject(named)) return refuse(action, `"added_tokens_decoder" an object`, show(named));
  const byId = new Map<number, SpecialToken>();
  const texts = new Set<string>();
  for (const [id, entry] of Object.entries(named)) {
    const token = readSpecial(id, entry, base, vocabularySize);
    if (texts.has(token.text)) {
      refuse(`${action}, token ${id}`, "each text once", `${quote(token.text)} twice`);
    }
    byId.set(token.id, token);
    texts.add(token.text);
  }
  for (const [offset, text, special] of KIMI_MARKERS) {
    const id = base + offset;
    if (id < vocabularySize && !byId.has(id) && !texts.has(text)) {
      byId.set(id, { id, text, special });
      texts.add(text);
    }
  }
  for (const marker of CHAT_MARKERS) {
    if (!texts.has(marker)) {
      const found = `none among ids ${base} to ${vocabularySize - 1}`;
      refuse(action, `the marker "${marker}"`, found);
    }
  }
  return [...byId.values()].sort((a, b) => a.id - b.id);
}

function readSpecial(
  id: string,
  entry: unknown,
  base: number,
  vocabularySize: number,
): SpecialToken {
  const action = `read "${TOKENIZER_CONFIG}", token ${quote(id)}`;
  const number = /^\d{1,10}$/.test(id) ? Number(id) : -1;
  if (number < base || number >= vocabularySize || String(number) !== id) {
    refuse(action, `an id from ${base} to ${vocabularySize - 1}`, quote(id));
  }
  if (!isObject(entry)) return refuse(action, "an object", show(entry));
  const { content, special } = entry;
  if (
    typeof content !== "string" || content === "" || !content.isWellFormed() ||
    content.length > MAX_SPECIAL_TOKEN_CHARACTERS
  ) {
    const wanted = `"content" a text of 1 to ${MAX_SPECIAL_TOKEN_CHARACTERS} characters`;
    return refuse(action, wanted, show(content));
  }
  if (typeof special !== "boolean") {
    return refuse(action, `"special" true or false`, show(special));
  }
  return { id: number, text: content, special };
}

/**
 * Sampling defaults and the ids that end a generation: those of generation_config.json, the model's
 * own eos_token_id, and `[EOS]`, which the published file leaves out. Throws ModelError.
 */
export function readGenerationDefaults(
  files: FolderFiles,
  config: ModelConfig,
  specials: readonly SpecialToken[],
): GenerationDefaults {
  const action = `read "${GENERATION_CONFIG}"`;
  const json = parseJsonObject(files.readAll(GENERATION_CONFIG, MAX_CONFIG_FILE_BYTES), action);
  const number = (key: string, fallback: number, least: number, most: number): number => {
    const value = json[key] ?? fallback;
    if (typeof value !== "number" || !(value >= least && value <= most)) {
      return refuse(action, `"${key}" a number from ${least} to ${most}`, show(value));
    }
    return value;
  };
  const greedy = json.do_sample ?? true;
  if (typeof greedy !== "boolean") {
    refuse(action, `"do_sample" true or false`, show(json.do_sample));
  }
  const temperature = number("temperature", DEFAULT_TEMPERATURE, 0, 2);
  const topK = number("top_k", 0, 0, config.shape.vocabularySize);
  if (!Number.isInteger(topK)) refuse(action, `"top_k" an integer`, show(topK));
  return {
    temperature: json.do_sample === false ? 0 : temperature,
    topK,
    topP: number("top_p", 1, Number.MIN_VALUE, 1),
    minP: number("min_p", 0, 0, 1),
    eosIds: readEosIds(json.eos_token_id, action, config, specials),
  };
}

function readEosIds(
  value: unknown,
  action: string,
  config: ModelConfig,
  specials: readonly SpecialToken[],
): number[] {
  const last = config.shape.vocabularySize - 1;
  const list = Array.isArray(value) ? value : value === undefined || value === null ? [] : [value];
  const isId = (id: unknown) =>
    Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) <= last;
  if (list.length > MAX_EOS_IDS || !list.every(isId)) {
    const wanted = `"eos_token_id" up to ${MAX_EOS_IDS} integers from 0 to ${last}`;
    refuse(action, wanted, show(value));
  }
  const ids = new Set<number>([...list, config.eosId]);
  const endOfText = specials.find(({ text }) => text === "[EOS]");
  if (endOfText !== undefined) ids.add(endOfText.id);
  return [...ids].sort((a, b) => a - b);
}
