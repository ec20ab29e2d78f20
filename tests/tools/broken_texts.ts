/** Broken tokenizer and JSON files, and folders broken on disk. */

import { broken, type BrokenModel, file, SINGLE } from "./broken_model.ts";

const NO_CONFIG = /^read "config\.json": wanted /;
const TOKENS = /^read "tokenizer_config\.json"/;
const bytesAs = (line: (byte: number) => string) =>
  Array.from({ length: 256 }, (_, byte) => line(byte)).join("\n");
const base64 = (byte: number) => btoa(String.fromCharCode(byte));

export const BROKEN_TEXTS: readonly BrokenModel[] = [
  file(
    "config.json",
    undefined,
    /^read "config\.json" in ".*": wanted a file, found none$/,
    "missing",
  ),
  file("config.json", "", /^read "config\.json": wanted JSON, found no text$/, "empty"),
  file("config.json", '{"a": 1', /^read "config\.json": wanted JSON, found Expected/, "cut short"),
  file("config.json", "[1]", /^read "config\.json": wanted a JSON object, found \[1\]$/, "array"),
  file("config.json", "[".repeat(1e5), /at most 32 levels of JSON, found more$/, "deep"),
  file("config.json", '{"a":1,"\\u0061":2}', /wanted key "a" once, found it twice$/, "twice a key"),
  file("config.json", " ".repeat(2 ** 20 + 1), /wanted at most 1048576 bytes/, "large"),
  broken("config.json not UTF-8", NO_CONFIG, {
    files: (files) => files.set("config.json", Uint8Array.of(0x7b, 0xff, 0x7d)),
  }),
  file("tiktoken.model", undefined, /^read "tiktoken\.model" in ".*": .* none$/, "missing"),
  file("tiktoken.model", "", /every single byte as a token, found none for byte 0$/, "empty"),
  file(
    "tiktoken.model",
    "AA== zero\n",
    /^read line 1 of "tiktoken\.model": wanted base64/,
    "words",
  ),
  file(
    "tiktoken.model",
    bytesAs((b) => `${base64(b)} ${b + (b > 200 ? 1 : 0)}`),
    /^read line 256 of "tiktoken\.model": wanted a rank below 256, found 256$/,
    "gap in ranks",
  ),
  file(
    "tiktoken.model",
    bytesAs((b) => `${base64(b)} ${Math.min(b, 254)}`),
    /wanted each rank once, found 254 twice$/,
    "rank twice",
  ),
  file(
    "tiktoken.model",
    bytesAs((b) => `${base64(b === 65 ? 66 : b)} ${b}`),
    /wanted each token once, found Qg== twice$/,
    "token twice",
  ),
  broken("more ranks than vocab_size", /wanted at most 280 tokens \(vocab_size\), found 300$/, {
    draft: (draft) => {
      for (let i = 256; i < 300; i++) draft.tiktoken += `${btoa(`ab${i}`)} ${i}\n`;
    },
  }),
  file("tokenizer_config.json", undefined, /^read "tokenizer_config\.json" in /, "missing"),
  file("tokenizer_config.json", "nul", TOKENS, "no JSON"),
  broken("special id among the ranks", /token "255": wanted an id from 256 to 279/, {
    draft: ({ tokenizerConfig }) =>
      tokenizerConfig.added_tokens_decoder["255"] = { content: "x", special: true },
  }),
  broken("special id beyond the vocabulary", /token "280": wanted an id from 256 to 279/, {
    draft: ({ tokenizerConfig }) =>
      tokenizerConfig.added_tokens_decoder["280"] = { content: "x", special: true },
  }),
  broken("special text twice", /wanted each text once, found "\[BOS\]" twice$/, {
    draft: ({ tokenizerConfig }) =>
      tokenizerConfig.added_tokens_decoder["270"] = { content: "[BOS]", special: true },
  }),
  broken("special without text", /token "270": wanted "content" a text .*, found none$/, {
    draft: ({ tokenizerConfig }) => tokenizerConfig.added_tokens_decoder["270"] = { special: true },
  }),
  broken("marker's id taken", /wanted the marker "<\|im_system\|>", found none among ids/, {
    draft: ({ tokenizerConfig }) =>
      tokenizerConfig.added_tokens_decoder["266"] = { content: "other", special: true },
  }),
  file("generation_config.json", undefined, /^read "generation_config\.json" in /, "missing"),
  file(
    "generation_config.json",
    '{"eos_token_id": [258, 280]}',
    /^read "generation_config\.json": wanted "eos_token_id" .* 279, found \[258,280\]$/,
    "eos out of range",
  ),
  file(
    "generation_config.json",
    '{"temperature": -1}',
    /wanted "temperature" a number from 0 to 2, found -1$/,
    "negative temperature",
  ),
  file(
    "generation_config.json",
    '{"top_k": 1.5}',
    /wanted "top_k" an integer, found 1\.5$/,
    "top_k 1.5",
  ),
];

export const BROKEN_FOLDERS: readonly BrokenModel[] = [
  broken("link that leaves the folder", /wanted a file inside the model folder, found a link/, {
    disk: (directory) => {
      const outside = `${directory}-outside.safetensors`;
      Deno.renameSync(`${directory}/${SINGLE}`, outside);
      Deno.symlinkSync(outside, `${directory}/${SINGLE}`);
    },
  }),
  broken(
    "weights are a folder",
    /^read "model\.safetensors" in .*: wanted a file, found a folder$/,
    {
      files: (files) => files.delete(SINGLE),
      disk: (directory) => Deno.mkdirSync(`${directory}/${SINGLE}`),
    },
  ),
  broken("link to itself", /^read "config\.json" in ".*": wanted a file, found /, {
    files: (files) => files.delete("config.json"),
    disk: (directory) => Deno.symlinkSync("config.json", `${directory}/config.json`),
  }),
  broken("no folder", /^open model folder ".*": wanted a folder, found none$/, {
    disk: (directory) => Deno.removeSync(directory, { recursive: true }),
  }),
  broken("a file for a folder", /^open model folder ".*": wanted a folder, found a file$/, {
    disk: (directory) => {
      Deno.removeSync(directory, { recursive: true });
      Deno.writeTextFileSync(directory, "");
    },
  }),
];
