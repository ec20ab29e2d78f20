/**
 * What a grammar costs: its vocabulary, its start, and a token's mask, with the embedded model's
 * tokens and with 163,840 made ones.
 *
 *     deno run -A tests/bench/grammar_bench.ts
 */
import { allows } from "../../wasm/bit_mask.ts";
import {
  type Grammar,
  GrammarMatcher,
  GrammarVocabulary,
  loadGrammarModule,
} from "../../wasm/grammar.ts";
import { tinyGeneration, tinyTokenizer, tinyVocabularySize } from "../tools/tiny_text.ts";

const SCHEMA: Grammar = {
  kind: "json_schema",
  source: JSON.stringify({
    type: "object",
    properties: {
      name: { type: "string", maxLength: 40 },
      age: { type: "integer", minimum: 0, maximum: 120 },
      tags: { type: "array", items: { enum: ["a", "b", "c"] }, maxItems: 4 },
      note: { type: "string", maxLength: 100 },
    },
    required: ["name", "age", "tags", "note"],
    additionalProperties: false,
  }),
};
const TEXTS = 200;
const LARGE = 163_840;

/** Single bytes, then pairs of the embedded model's tokens, each once. */
function makeTokens(): Uint8Array[] {
  const tokens = new Map<string, Uint8Array>();
  const known = Array.from(
    { length: tinyTokenizer.rankCount },
    (_, id) => tinyTokenizer.tokenBytes(id),
  );
  for (const bytes of known) tokens.set(bytes.join(), bytes);
  for (let at = 0; tokens.size < LARGE - 1; at++) {
    const [a, b] = [known[at % known.length]!, known[Math.floor(at / known.length)]!];
    const bytes = Uint8Array.of(...a, ...b);
    tokens.set(bytes.join(), bytes);
  }
  return [...tokens.values()];
}

function measure(name: string, make: () => GrammarVocabulary): void {
  let began = performance.now();
  const vocabulary = make();
  const made = performance.now() - began;
  const starts: number[] = [];
  const masks: number[] = [];
  let seed = 1;
  for (let text = 0; text < TEXTS; text++) {
    began = performance.now();
    const matcher = new GrammarMatcher(vocabulary, SCHEMA);
    starts.push(performance.now() - began);
    while (!matcher.isOver) {
      began = performance.now();
      const mask = matcher.mask();
      masks.push(performance.now() - began);
      const ids = Array.from({ length: vocabulary.size }, (_, id) => id)
        .filter((id) => allows(mask, id));
      seed = (seed * 48_271) % 2_147_483_647;
      matcher.consume(ids[seed % ids.length]!);
    }
    matcher.free();
  }
  const at = (values: number[], share: number) =>
    values.sort((a, b) => a - b)[Math.floor(share * (values.length - 1))]!;
  const us = (milliseconds: number) => (milliseconds * 1_000).toFixed(0).padStart(8);
  console.log(
    name.padEnd(14) + made.toFixed(0).padStart(10) + us(at(starts, 0.5)) + us(at(masks, 0.5)) +
      us(at(masks, 0.9)) + us(at(masks, 1)) + String(masks.length).padStart(9),
  );
}

loadGrammarModule();
console.log("vocabulary       made ms start us  mask us    90 %   worst   tokens");
const end = tinyGeneration.eosIds.at(-1)!;
measure(String(tinyVocabularySize), () =>
  new GrammarVocabulary(
    (id) => tinyTokenizer.tokenBytes(id),
    (id) => id >= tinyTokenizer.rankCount,
    tinyVocabularySize,
    end,
    (text) => tinyTokenizer.encode(text),
  ));
const tokens = makeTokens();
measure(String(LARGE), () =>
  new GrammarVocabulary(
    (id) => tokens[id] ?? Uint8Array.of(0x65, 0x6e, 0x64),
    (id) => id === LARGE - 1,
    LARGE,
    LARGE - 1,
    (text) => tinyTokenizer.encode(text),
  ));
