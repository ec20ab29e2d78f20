import { deepEqual, equal } from "node:assert/strict";
import { countCodePoints, TextStream } from "../../runtime/chat/text_stream.ts";
import { tinySpecials, tinyTokenizer } from "../tools/tiny_text.ts";

function run(ids: Iterable<number>, stops: readonly string[] = [], skipSpecial = true) {
  const stream = new TextStream(tinyTokenizer, { skipSpecial, stops });
  const deltas: string[] = [];
  for (const id of ids) {
    deltas.push(stream.push(id));
    if (stream.stopped !== null) break;
  }
  deltas.push(stream.end());
  const { stopped, characters } = stream;
  stream.free();
  return { deltas, text: deltas.join(""), stopped, characters };
}

const TEXT = "Grüße, 世界! 🙂👩‍👩‍👧 \uFEFFend\n";

Deno.test("text stream: the deltas are whole characters and sum to the text", () => {
  const { deltas, text, characters } = run(tinyTokenizer.encode(TEXT));
  equal(text, TEXT);
  equal(characters, Array.from(TEXT).length);
  for (const delta of deltas) equal(delta.includes("\uFFFD"), false);
});

Deno.test("text stream: an incomplete character comes as U+FFFD at the end only", () => {
  const ids = Array.from(tinyTokenizer.encode("a🙂"));
  const { deltas } = run(ids.slice(0, -1));
  equal(deltas.slice(0, -1).join(""), "a");
  equal(deltas.at(-1), "\uFFFD");
});

Deno.test("text stream: a stop string over several tokens, at every place of the text", () => {
  const ids = tinyTokenizer.encode(TEXT);
  const units = Array.from(TEXT);
  for (let from = 0; from < units.length; from++) {
    for (let to = from + 1; to <= Math.min(units.length, from + 4); to++) {
      const stop = units.slice(from, to).join("");
      const { text, stopped } = run(ids, [stop]);
      equal(text, TEXT.slice(0, TEXT.indexOf(stop)), JSON.stringify(stop));
      equal(stopped, stop);
    }
  }
});

Deno.test("text stream: a stop string in the first token leaves nothing", () => {
  deepEqual(run(tinyTokenizer.encode("Hello there"), ["H"]).text, "");
});

Deno.test("text stream: special tokens are left out, tool markers are text", () => {
  for (const { id, text, special } of tinySpecials) {
    const [a] = tinyTokenizer.encode("a");
    equal(run([a!, id, a!]).text, special ? "aa" : `a${text}a`);
    equal(run([a!, id, a!], [], false).text, `a${text}a`);
  }
});

Deno.test("text stream: characters are counted as code points", () => {
  equal(countCodePoints("a🙂é\ud800"), 4);
  equal(countCodePoints(""), 0);
});
