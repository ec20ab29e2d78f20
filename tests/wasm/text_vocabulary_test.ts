/** Vocabulary files: merging by any ranks, and what is refused. */
import assert from "node:assert";
import { Buffer } from "node:buffer";
import { loadTextModule, splitPieces, Tokenizer } from "../../wasm/text.ts";
import { randomSource } from "../reference/random.ts";

loadTextModule();

const base64 = (token: Uint8Array | string) => Buffer.from(token).toString("base64");
const singles = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
const file = (lines: readonly string[]) => new TextEncoder().encode(lines.join("\n"));
const line = (token: Uint8Array | string, rank: number | string) => `${base64(token)} ${rank}`;
const bytesFile = (tokens: readonly (Uint8Array | string)[]) => file(tokens.map(line));

/** Merging by the definition: search all pairs, merge the leftmost of lowest rank, again. */
function mergeByDefinition(ranks: ReadonlyMap<string, number>, piece: string): number[] {
  const bytes = Buffer.from(piece).toString("latin1");
  const whole = ranks.get(bytes);
  if (whole !== undefined) return [whole];
  const parts = [...bytes];
  for (;;) {
    let best = -1;
    let bestRank = Infinity;
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = ranks.get(parts[i]! + parts[i + 1]!) ?? Infinity;
      if (rank < bestRank) [best, bestRank] = [i, rank];
    }
    if (best < 0) return parts.map((part) => ranks.get(part)!);
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
}

Deno.test("Tokenizer.encode() merges by the definition for random vocabularies", () => {
  const seed = 21;
  const random = randomSource(seed);
  const letter = () => "abcé"[Math.floor(random() * 4)]!;
  const word = (most: number) =>
    Array.from({ length: 1 + Math.floor(random() * most) }, letter).join("");
  for (let round = 0; round < 60; round++) {
    // Tokens that no merge reaches, overlapping and long ones, single bytes at any rank.
    const words = new Set(Array.from({ length: 40 }, () => word(round % 3 === 0 ? 30 : 5)));
    const tokens = [...singles.map((byte) => Buffer.from(byte).toString("latin1"))];
    for (const text of words) {
      const token = Buffer.from(text).toString("latin1");
      if (token.length > 1) tokens.splice(Math.floor(random() * (tokens.length + 1)), 0, token);
    }
    const ranks = new Map(tokens.map((token, rank) => [token, rank]));
    const bytes = bytesFile(tokens.map((token) => Buffer.from(token, "latin1")));
    const tokenizer = new Tokenizer(bytes, [], tokens.length);
    for (let i = 0; i < 40; i++) {
      const text = [word(60), word(300), "a".repeat(1 + Math.floor(random() * 120))].join(" ");
      const wanted = splitPieces(text).flatMap((piece) => mergeByDefinition(ranks, piece));
      assert.deepEqual([...tokenizer.encode(text)], wanted, `seed ${seed}, round ${round}`);
    }
    tokenizer.free();
  }
});

Deno.test("Tokenizer takes lines in any order, CRLF and empty lines", () => {
  const lines = [...singles.map(line), line("ab", 256), line("abc", 257)].reverse();
  const tokenizer = new Tokenizer(
    new TextEncoder().encode(`\r\n${lines.join("\r\n")}\n\n`),
    [],
    300,
  );
  assert.equal(tokenizer.rankCount, 258);
  assert.deepEqual([...tokenizer.encode("abcab")], [257, 256]);
  assert.equal(tokenizer.decode([299]), "<|reserved_token_299|>");
  tokenizer.free();
});

Deno.test("Tokenizer has room for more slots than could be listed", () => {
  const size = 2 ** 31 - 1;
  const special = { id: size - 1, text: "<end>", special: true };
  const tokenizer = new Tokenizer(bytesFile(singles), [special], size);
  const text = "<end><|reserved_token_2000000000|>";
  assert.deepEqual([...tokenizer.encode(text, true)], [size - 1, 2_000_000_000]);
  tokenizer.free();
});

const broken: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["nothing", file([]), /read tokenizer: wanted all single bytes, found none for 0x00/],
  ["no space", file(["QQ=="]), /line 1: wanted "base64 rank", found "QQ=="/],
  ["no token", file([...singles.map(line), " 256"]), /line 257: wanted "base64 rank"/],
  ["bad base64", file(["Q!== 0"]), /line 1: wanted base64, found "Q!=="/],
  ["base64 cut short", file(["QUI 0"]), /line 1: wanted base64, found "QUI"/],
  ["no rank", file(["QQ== "]), /line 1: wanted a rank, found ""/],
  ["a sign", file(["QQ== +1"]), /line 1: wanted a rank, found "\+1"/],
  ["a fraction", file(["QQ== 1.0"]), /line 1: wanted a rank, found "1\.0"/],
  ["another column", file(["QQ== 1 2"]), /line 1: wanted a rank, found "1 2"/],
  ["a huge rank", file(["QQ== 99999999999999999999"]), /line 1: wanted a rank, found "9999/],
  ["a rank too large", file(["QQ== 300"]), /line 1: wanted a rank below the vocabulary size 300/],
  [
    "a rank twice",
    file([...singles.map(line), line("ab", 7)]),
    /line 257: wanted each rank once, found 7 in line 8 too/,
  ],
  [
    "a token twice",
    bytesFile([...singles, "ab", "ab"]),
    /line 258: wanted each token once, found "ab" in line 257 too/,
  ],
  [
    "a gap",
    file([...singles.map(line), line("ab", 257)]),
    /line 257: wanted rank 256 in some line, found none below 257/,
  ],
  [
    "a missing byte",
    bytesFile(singles.filter((_, byte) => byte !== 0x41)),
    /wanted all single bytes, found none for 0x41/,
  ],
  ["bytes that are no text", Uint8Array.of(0xff, 0xfe, 0x20, 0x30), /line 1: wanted base64/],
  ["a long line", file(["x".repeat(1e6)]), /line 1: wanted "base64 rank", found "x{40}"\.\.\./],
];

Deno.test("Tokenizer refuses a broken vocabulary file, naming line, wanted and found", () => {
  for (const [name, bytes, message] of broken) {
    assert.throws(() => new Tokenizer(bytes, [], 300), message, name);
  }
});

Deno.test("Tokenizer refuses special tokens that clash", () => {
  const special = (id: number, text: string) => ({ id, text, special: true });
  const cases: [ReturnType<typeof special>[], RegExp][] = [
    [[special(255, "<x>")], /add special token "<x>" 255: wanted an id from 256 to below 300/],
    [[special(300, "<x>")], /add special token "<x>": wanted an integer from 0 to below 300/],
    [[special(-1, "<x>")], /add special token "<x>": wanted an integer/],
    [[special(256, "")], /add special token "" 256: wanted a text, found none/],
    [[special(256, "<x>"), special(257, "<x>")], /wanted each text once, found it twice/],
    [[special(256, "<x>"), special(256, "<y>")], /wanted each id once, found it twice/],
  ];
  for (const [specials, message] of cases) {
    assert.throws(() => new Tokenizer(bytesFile(singles), specials, 300), message);
  }
});
