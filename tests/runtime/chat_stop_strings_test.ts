import { deepEqual, equal, ok } from "node:assert/strict";
import { StopStrings } from "../../runtime/chat/stop_strings.ts";
import { randomSource } from "../reference/random.ts";

interface Result {
  readonly text: string;
  readonly found: string | null;
}

function run(stops: readonly string[], chunks: readonly string[]): Result {
  const matcher = new StopStrings(stops);
  const text = chunks.map((chunk) => matcher.push(chunk)).join("") + matcher.flush();
  return { text, found: matcher.found };
}

/** The rule, without any state: the first end of a match, and of those the longest match. */
function expected(stops: readonly string[], text: string): Result {
  for (let end = 1; end <= text.length; end++) {
    const here = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    const longest = here.sort((a, b) => b.length - a.length)[0];
    if (longest !== undefined) return { text: text.slice(0, end - longest.length), found: longest };
  }
  return { text, found: null };
}

/** What must be held back: the longest end of the text that begins a stop string. */
function mustHold(stops: readonly string[], text: string): number {
  for (let length = Math.min(text.length, 300); length > 0; length--) {
    const tail = text.slice(-length);
    if (stops.some((stop) => stop.length > length && stop.startsWith(tail))) return length;
  }
  return 0;
}

const CASES: readonly [string, readonly string[], string][] = [
  ["none", [], "some text"],
  ["at the start", ["some"], "some text"],
  ["at the end", ["text"], "some text"],
  ["begun but not ended", ["texts"], "some text"],
  ["one inside the other", ["abcd", "bc"], "xabcdy"],
  ["same end, two lengths", ["c", "abc", "bc"], "xabcdy"],
  ["repeats within", ["aab"], "aaaaab!"],
  ["restart within a match", ["abab!"], "abababab!x"],
  ["multi-byte", ["日本", "é\n"], "语日日本x"],
  ["surrogate pairs that share a half", ["😀!"], "😃😀😀!"],
  ["newlines", ["\n\n"], "a\nb\n\nc"],
];

for (const [name, stops, text] of CASES) {
  Deno.test(`stop strings: ${name}, cut anywhere in three`, () => {
    const want = expected(stops, text);
    for (let first = 0; first <= text.length; first++) {
      for (let second = first; second <= text.length; second++) {
        const chunks = [text.slice(0, first), text.slice(first, second), text.slice(second)];
        deepEqual(run(stops, chunks), want, JSON.stringify(chunks));
      }
    }
  });
}

Deno.test("stop strings: random texts and cuts, nothing lost or leaked", () => {
  const seed = 20_261;
  console.log(`seed ${seed}`);
  const next = randomSource(seed);
  const pick = (count: number) => Math.floor(next() * count);
  const letters = ["a", "b", "é", "\n", "😀"];
  const word = (most: number) =>
    Array.from({ length: 1 + pick(most) }, () => letters[pick(letters.length)]).join("");
  for (let round = 0; round < 3000; round++) {
    const stops = Array.from({ length: pick(4) }, () => word(4));
    const text = word(24);
    const want = expected(stops, text);
    const matcher = new StopStrings(stops);
    let at = 0;
    let out = "";
    while (at < text.length) {
      const end = Math.min(text.length, at + 1 + pick(5));
      out += matcher.push(text.slice(at, end));
      at = end;
      if (matcher.found === null) {
        const seen = text.slice(0, at);
        equal(out.length, seen.length - mustHold(stops, seen), "holds back more or less than due");
        ok(seen.startsWith(out));
      }
    }
    deepEqual({ text: out + matcher.flush(), found: matcher.found }, want);
  }
});
