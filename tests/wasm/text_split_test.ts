/** The split rule against golden values of the released tokenizer and against its regular
 * expression
 * in JavaScript. */
import assert from "node:assert";
import { loadTextModule, splitPieces } from "../../wasm/text.ts";
import { randomSource } from "../reference/random.ts";

loadTextModule();

const goldens: readonly string[] = [
  "hello|World",
  "get|User|Name",
  "HTTPServer| isn't| ready",
  "价格是|100|元",
  "中文|abc|混合|English",
  " | leading| and|  | trailing|  ",
  "123|456|7",
  "path|/to|/file|.txt",
  "x'S| Y'T",
  "ſ'ſ",
  "日本語|テスト",
  "々〇|x",
  " |中文",
  "tab|\tsep",
  "a|\n\n|b",
  "emoji| 🙂| and| punct|!!",
];

Deno.test("splitPieces() gives the 16 split goldens", () => {
  for (const golden of goldens) {
    const pieces = golden.split("|");
    assert.deepEqual(splitPieces(pieces.join("")), pieces);
  }
});

Deno.test("splitPieces() takes contractions in either case, no Kelvin sign", () => {
  const cases: [string, string[]][] = [
    ["it's IT'S it'S", ["it's", " IT'S", " it'S"]],
    ["we'Re I'vE m'LL d'D t'T m'm", ["we'Re", " I'vE", " m'LL", " d'D", " t'T", " m'm"]],
    ["ſ K 'ſ '\u212a", ["ſ", " K", " '", "ſ", " '", "\u212a"]],
    ["aſ'ſx", ["aſ'ſ", "x"]],
    ["a'ſſ", ["a'ſ", "ſ"]],
    ["a'\u212a", ["a", "'\u212a"]],
    ["a'r b'l c'", ["a", "'r", " b", "'l", " c", "'"]],
    ["中's", ["中", "'s"]],
    ["1's", ["1", "'s"]],
  ];
  for (const [text, pieces] of cases) assert.deepEqual(splitPieces(text), pieces);
});

Deno.test("splitPieces() tries a mark as a word's own letter before an upper-case word", () => {
  assert.deepEqual(splitPieces("\u0301ABC"), ["\u0301", "ABC"]);
  assert.deepEqual(splitPieces("\u0301ABc"), ["\u0301ABc"]);
  assert.deepEqual(splitPieces("!\u0301ABC"), ["!\u0301", "ABC"]);
  assert.deepEqual(splitPieces("\u0301"), ["\u0301"]);
});

/** The rule with the flags gv, spelled for JavaScript: `&&` and `--` need bracketed operands, \s is
 * another set there, and (?i:) would not fold the long s. */
function javascriptPattern(): RegExp {
  const blank = "\\t-\\r \\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000";
  const up = "[[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]--\\p{Script=Han}]";
  const lo = "[[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]--\\p{Script=Han}]";
  const before = "[^\\r\\n\\p{L}\\p{N}]?";
  const contraction = "(?:'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD]))?";
  return new RegExp(
    [
      "\\p{Script=Han}+",
      `${before}${up}*${lo}+${contraction}`,
      `${before}${up}+${lo}*${contraction}`,
      "\\p{N}{1,3}",
      ` ?[^${blank}\\p{L}\\p{N}]+[\\r\\n]*`,
      `[${blank}]*[\\r\\n]+`,
      `[${blank}]+(?![^${blank}])`,
      `[${blank}]+`,
    ].join("|"),
    "gv",
  );
}

/** Characters of every class of the rule, most of them several times. */
const alphabet = [
  ..."aazZbBéÉßſ's's'tT'rReEvVmMlLdD",
  ..."ǅʰªㅎאاकกあカー한\u0301\u0308\u093e\u20dd",
  ..."中文々〇⺀豈\u{2f800}12٣½Ⅷ²",
  ..."     \t\n\r\v\u0085\u00a0\u1680\u2003\u2028\u202f\u3000\ufeff\u200b",
  ..."!?-_.,'\"/()🙂🚀\u200d\u{1f3fd}€\0\u007f\u{10ffff}\ue000",
];

Deno.test("splitPieces() equals the regular expression on 20,000 random strings", () => {
  const seed = 4;
  const random = randomSource(seed);
  const pattern = javascriptPattern();
  for (let i = 0; i < 20_000; i++) {
    const length = 1 + Math.floor(random() * 24);
    // Few characters at a time make long runs and repeated classes likely.
    const few = Array.from(
      { length: 1 + Math.floor(random() * 6) },
      () => alphabet[Math.floor(random() * alphabet.length)]!,
    );
    const pool = i % 2 === 0 ? alphabet : few;
    const text = Array.from({ length }, () => pool[Math.floor(random() * pool.length)]!).join("");
    assert.deepEqual(
      splitPieces(text),
      text.match(pattern) ?? [],
      `seed ${seed}, string ${i}: ${JSON.stringify(text)}`,
    );
  }
});

Deno.test("splitPieces() equals the regular expression on every assigned character", () => {
  const pattern = javascriptPattern();
  const isAssigned = /^[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Z}\p{Cc}\p{Cf}\p{Co}]$/v;
  const wrong: string[] = [];
  for (let code = 0; code < 0x110000; code++) {
    if (code >= 0xd800 && code < 0xe000) continue;
    const character = String.fromCodePoint(code);
    if (!isAssigned.test(character)) continue;
    const text = `${character}a${character}A 1${character}${character}!`;
    if (splitPieces(text).join("|") !== (text.match(pattern) ?? []).join("|")) {
      wrong.push(`U+${code.toString(16)}`);
    }
  }
  assert.deepEqual(wrong, []);
});
