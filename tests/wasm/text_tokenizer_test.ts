/** Encoding and decoding with the embedded model's vocabulary. */
import assert from "node:assert";
import { StreamDecoder, Tokenizer } from "../../wasm/text.ts";
import { randomSource } from "../reference/random.ts";
import { kedgeTinyTokenizer, specialTokens, vocabularySize } from "./kedge_tiny_tokenizer.ts";

interface Fixture {
  readonly texts: readonly (readonly [string, readonly number[]])[];
  readonly long: readonly {
    readonly runs: readonly (readonly [string, number])[];
    readonly count: number;
    readonly sum: number;
  }[];
}

async function readFixture(): Promise<Fixture> {
  const file = await Deno.open(new URL("fixtures/kedge_tiny_tokens.json.gz", import.meta.url));
  const plain = file.readable.pipeThrough(new DecompressionStream("gzip"));
  return await new Response(plain).json();
}

const tokenizer = kedgeTinyTokenizer();
const specials = specialTokens();

/** Any text: random scalar values, lengths of UTF-8 evenly mixed. */
function randomText(random: () => number, length: number): string {
  const limits = [0x80, 0x800, 0xd800, 0x110000];
  return Array.from({ length }, () => {
    const code = Math.floor(random() * limits[Math.floor(random() * limits.length)]!);
    return String.fromCodePoint(code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
  }).join("");
}

Deno.test("Tokenizer.encode() equals Python's tiktoken on every text of the fixture", async () => {
  const { texts, long } = await readFixture();
  assert.ok(texts.length >= 2000);
  for (const [text, ids] of texts) {
    assert.deepEqual([...tokenizer.encode(text)], ids, JSON.stringify(text));
    assert.equal(tokenizer.decode(ids), text);
  }
  assert.ok(long.length >= 4);
  for (const { runs, count, sum } of long) {
    const ids = tokenizer.encode(runs.map(([unit, times]) => unit.repeat(times)).join(""));
    assert.equal(ids.length, count);
    assert.equal(ids.reduce((value, id) => (value * 31 + id) % 1_000_003, 0), sum);
  }
});

Deno.test("Tokenizer.decode() undoes encode() for 3,000 random texts", () => {
  const seed = 11;
  const random = randomSource(seed);
  for (let i = 0; i < 3000; i++) {
    const text = randomText(random, Math.floor(random() * 60));
    const allowSpecial = i % 2 === 1;
    const ids = tokenizer.encode(text, allowSpecial);
    assert.equal(tokenizer.decode(ids), text, `seed ${seed}, text ${i}`);
    if (!allowSpecial) assert.ok(ids.every((id) => id < tokenizer.rankCount));
  }
});

Deno.test("Tokenizer.encode() makes U+FFFD of lone surrogates and keeps a byte order mark", () => {
  assert.equal(tokenizer.decode(tokenizer.encode("a\ud800b\udc00")), "a\ufffdb\ufffd");
  assert.equal(tokenizer.decode(tokenizer.encode("\ufeffx")), "\ufeffx");
  assert.equal(tokenizer.encode("").length, 0);
  assert.equal(tokenizer.decode([]), "");
});

Deno.test("Tokenizer.encode() gives special tokens only when they are allowed", () => {
  assert.equal(specials.length, 17);
  const named = specials.map(({ id, text }) => [id, text] as const);
  const all = [...named, [4000, "<|reserved_token_4000|>"]] as const;
  for (const [id, text] of all) {
    for (const content of [text, `a${text}`, `${text} b`, `a ${text}${text}\n`]) {
      const plain = tokenizer.encode(content);
      assert.ok(plain.every((other) => other < tokenizer.rankCount), content);
      assert.equal(tokenizer.decode(plain), content);
      const ids = tokenizer.encode(content, true);
      const times = content.split(text).length - 1;
      assert.equal(ids.filter((other) => other === id).length, times, content);
      assert.equal(tokenizer.decode(ids), content);
    }
    assert.equal(tokenizer.specialId(text), id);
    assert.equal(new TextDecoder().decode(tokenizer.tokenBytes(id)), text);
  }
});

Deno.test("Tokenizer.encode() splits at special tokens and knows reserved slots exactly", () => {
  const encode = (text: string) => [...tokenizer.encode(text)];
  const [id, text] = [specials[2]!.id, specials[2]!.text];
  // The run of spaces ends the first segment: all of it is one piece there.
  assert.deepEqual([...tokenizer.encode(`a   ${text}b`, true)], [
    ...encode("a   "),
    id,
    ...encode("b"),
  ]);
  for (
    const name of [
      ...["<|reserved_token_4096|>", "<|reserved_token_04000|>", "<|reserved_token_|>"],
      ...["<|reserved_token_3839|>", `<|reserved_token_${id}|>`, "<|reserved_token_4000|"],
      ...["<|reserved_token_4000000000000|>", "<|im_end", "<|IM_END|>"],
    ]
  ) {
    assert.deepEqual([...tokenizer.encode(name, true)], encode(name), name);
    assert.equal(tokenizer.specialId(name), null, name);
  }
});

Deno.test("Tokenizer.encode() takes the longest of the special tokens that start first", () => {
  const bytes = Deno.readFileSync(
    new URL("../../models/kedge-tiny/tiktoken.model", import.meta.url),
  );
  const texts = ["<a>", "<a><b>", "<", "b>c", "é"];
  const own = texts.map((text, i) => ({ id: 4000 + i, text, special: i % 2 === 0 }));
  const other = new Tokenizer(bytes, own, vocabularySize);
  const plain = (text: string) => [...other.encode(text)];
  assert.deepEqual([...other.encode("<a><b>c", true)], [4001, ...plain("c")]);
  assert.deepEqual([...other.encode("<a>b>cé", true)], [4000, 4003, 4004]);
  assert.deepEqual([...other.encode("<<a", true)], [4002, 4002, ...plain("a")]);
  assert.equal(other.decode([4000, 4001, 4002], true), "<a><b>");
  other.free();
});

Deno.test("Tokenizer.decode() skips special tokens and unnamed slots when asked", () => {
  const ids = tokenizer.encode("[BOS]hi<|tool_calls_section_begin|><|reserved_token_4000|>", true);
  const marked = new Map(specials.map(({ text, special }) => [text, special]));
  const kept = marked.get("<|tool_calls_section_begin|>") ? "" : "<|tool_calls_section_begin|>";
  assert.equal(tokenizer.decode(ids, true), `hi${kept}`);
  for (const { id, special } of specials) assert.equal(tokenizer.isSpecial(id), special);
  assert.equal(tokenizer.isSpecial(4000), true);
  for (const id of [0, tokenizer.rankCount - 1, vocabularySize, -1, 0.5]) {
    assert.equal(tokenizer.isSpecial(id), false);
  }
});

Deno.test("Tokenizer refuses ids outside the vocabulary", () => {
  for (const id of [vocabularySize, -1, 1.5, NaN]) {
    const message = /decode token: wanted an integer from 0 to below 4096, found/;
    assert.throws(() => tokenizer.tokenBytes(id), message);
    assert.throws(() => tokenizer.decode([1, id]), message);
  }
  assert.throws(
    () => tokenizer.decode(Uint32Array.of(1, 4096)),
    /decode token 4096: wanted an id below 4096/,
  );
});

Deno.test("Encoding.step() gives encode()'s ids for any step", () => {
  const random = randomSource(5);
  const unit = "Hello <|im_end|>\n\n  world's 中文🙂 12345 <|reserved_token_4001|>";
  const texts = ["", "a", unit.repeat(30), " ".repeat(60_000), randomText(random, 2000)];
  for (const text of texts) {
    for (const allowSpecial of [false, true]) {
      for (const most of [1, 7, 1000, 1e9]) {
        const encoding = tokenizer.startEncoding(text, allowSpecial);
        let steps = 1;
        while (!encoding.step(most)) steps++;
        assert.ok(steps <= text.length * 4 + 1);
        assert.deepEqual(encoding.take(), tokenizer.encode(text, allowSpecial));
        encoding.free();
      }
    }
  }
  const encoding = tokenizer.startEncoding("two words here");
  assert.equal(encoding.step(1), false);
  assert.throws(() => encoding.take(), /wanted step\(\) to have returned true/);
  encoding.free();
});

Deno.test("StreamDecoder gives decode()'s text for any ids and never half a character", () => {
  const seed = 12;
  const random = randomSource(seed);
  for (let i = 0; i < 2000; i++) {
    const skipSpecial = i % 2 === 0;
    // Every second case has any bytes at all, so that most of it is not UTF-8.
    const ids = i % 4 < 2
      ? [...tokenizer.encode(randomText(random, 12), true)]
      : Array.from({ length: 12 }, () => {
        const below = random() < 0.7 ? 256 : vocabularySize;
        return Math.floor(random() * below);
      });
    const decoder = new StreamDecoder(tokenizer, skipSpecial);
    const parts = ids.map((id) => decoder.push(id));
    const text = parts.join("") + decoder.flush();
    assert.equal(text, tokenizer.decode(ids, skipSpecial), `seed ${seed}, case ${i}`);
    assert.equal(decoder.flush(), "");
    decoder.free();
  }
});

Deno.test("StreamDecoder holds back no more than the start of a character", () => {
  const byteId = new Map(
    Array.from({ length: tokenizer.rankCount }, (_, id) => [id, tokenizer.tokenBytes(id)] as const)
      .filter(([, bytes]) => bytes.length === 1)
      .map(([id, bytes]) => [bytes[0]!, id]),
  );
  const decoder = new StreamDecoder(tokenizer, false);
  const push = (...bytes: number[]) => bytes.map((byte) => decoder.push(byteId.get(byte)!));
  assert.deepEqual(push(0xf0, 0x9f, 0x99, 0x82), ["", "", "", "🙂"]);
  assert.deepEqual(push(0xf0, 0x9f, 0x41), ["", "", "\ufffdA"]);
  assert.deepEqual(push(0xff, 0xc3, 0xa9), ["\ufffd", "", "é"]);
  assert.deepEqual(push(0xe4, 0xb8), ["", ""]);
  assert.equal(decoder.flush(), "\ufffd");
  assert.deepEqual(push(0x41), ["A"]);
  decoder.free();
});

Deno.test("Tokenizer.encode() is linear on megabytes without a place to split", () => {
  const random = randomSource(6);
  const letters = Array.from({ length: 1 << 20 }, () => {
    return String.fromCharCode(97 + Math.floor(random() * 26));
  }).join("");
  const size = 1 << 20;
  for (
    const text of ["a".repeat(size), " ".repeat(size), "\n".repeat(size), letters].concat(
      "Aa".repeat(size / 2),
      "'".repeat(size),
      "<|reserved_token_1".repeat(size / 16),
      "中".repeat(size / 2),
    )
  ) {
    const start = performance.now();
    const ids = tokenizer.encode(text, true);
    const milliseconds = performance.now() - start;
    assert.ok(milliseconds < 2000, `${JSON.stringify(text.slice(0, 20))}: ${milliseconds} ms`);
    assert.equal(tokenizer.decode(ids), text);
  }
});
