/** The grammar module over the embedded model's tokens. */
import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { allows } from "../../wasm/bit_mask.ts";
import {
  type Grammar,
  GrammarMatcher,
  GrammarVocabulary,
  loadGrammarModule,
} from "../../wasm/grammar.ts";
import { tinyGeneration, tinyTokenizer, tinyVocabularySize } from "../tools/tiny_text.ts";

loadGrammarModule();
const END = tinyGeneration.eosIds.at(-1)!;
const isSpecial = (id: number) => id >= tinyTokenizer.rankCount;
const vocabulary = new GrammarVocabulary(
  (id) => tinyTokenizer.tokenBytes(id),
  isSpecial,
  tinyVocabularySize,
  END,
  (text) => tinyTokenizer.encode(text),
);

function allowedIds(matcher: GrammarMatcher): number[] {
  const mask = matcher.mask();
  return Array.from({ length: tinyVocabularySize }, (_, id) => id)
    .filter((id) => allows(mask, id));
}

/** What may come after `text`, and whether the text may or must end there. */
function after(grammar: Grammar, text: string) {
  const matcher = new GrammarMatcher(vocabulary, grammar);
  for (const id of tinyTokenizer.encode(text)) matcher.consume(id);
  const ids = allowedIds(matcher);
  const { isOver } = matcher;
  matcher.free();
  return { ids, canEnd: ids.includes(END), isOver };
}

Deno.test("grammar: a text may end exactly where its grammar does", () => {
  const regex: Grammar = { kind: "regex", source: "ab?" };
  deepEqual(after(regex, "").canEnd, false);
  deepEqual(after(regex, "a").canEnd, true);
  deepEqual([after(regex, "a").isOver, after(regex, "ab").isOver], [false, true]);
  deepEqual(after(regex, "ab").ids, [END]);
});

Deno.test("grammar: special tokens come only where a grammar names them", () => {
  const any: Grammar = { kind: "regex", source: "(?s:.*)" };
  deepEqual(after(any, "").ids.filter(isSpecial), [END]);
  const call = tinyTokenizer.specialId("<|tool_call_begin|>")!;
  const named: Grammar = { kind: "lark", source: "start: <|tool_call_begin|> /a+/" };
  deepEqual(after(named, "").ids, [call]);
});

Deno.test("grammar: JSON is written with one space behind its separators", () => {
  const schema = {
    type: "object",
    properties: { a: { const: 1 }, b: { const: 2 } },
    required: ["a", "b"],
    additionalProperties: false,
    "x-guidance": { item_separator: ", ", key_separator: ": ", whitespace_flexible: false },
  };
  const grammar: Grammar = { kind: "json_schema", source: JSON.stringify(schema) };
  equal(after(grammar, '{"a": 1, "b": 2}').isOver, true);
  throws(() => after(grammar, '{"a":1'), /./);
});

/** Forced tokens at every place of a text, and what was written in between. */
function forcedText(grammar: Grammar, choose: (ids: number[]) => number) {
  const matcher = new GrammarMatcher(vocabulary, grammar);
  const [ids, forcedIds]: [number[], number[]] = [[], []];
  while (!matcher.isOver && ids.length < 200) {
    const forced = [...matcher.forced()];
    for (const id of forced) {
      ok(allows(matcher.mask(), id), "a forced token is allowed");
      matcher.consume(id);
    }
    forcedIds.push(...forced);
    ids.push(...forced);
    if (matcher.isOver) break;
    ids.push(choose(allowedIds(matcher)));
    matcher.consume(ids.at(-1)!);
  }
  matcher.free();
  return { text: tinyTokenizer.decode(Uint32Array.from(ids)), ids, forced: forcedIds.length };
}

Deno.test("grammar: text without a choice is forced as the tokenizer writes it", () => {
  const properties = { temperature: { enum: [20, 21] }, "größe der Straße": { const: "ß…🙂" } };
  const source = JSON.stringify({
    type: "object",
    properties,
    required: Object.keys(properties),
    additionalProperties: false,
    "x-guidance": { item_separator: ", ", key_separator: ": ", whitespace_flexible: false },
  });
  const { text, ids, forced } = forcedText({ kind: "json_schema", source }, (ids) => ids[0]!);
  const value = JSON.parse(text.replace(/<\|[^|]*\|>/g, ""));
  deepEqual(Object.keys(value), Object.keys(properties));
  ok(forced >= ids.length - 8, `${forced} of ${ids.length} forced`);
  const call = forcedText(
    {
      kind: "lark",
      source: 'start: <|tool_call_begin|> "functions.add:" /[01]/ <|tool_call_end|>',
    },
    (ids) => ids[0]!,
  );
  const [begin] = call.ids;
  equal(begin, tinyTokenizer.specialId("<|tool_call_begin|>"));
  deepEqual(forcedText({ kind: "regex", source: ".*" }, () => END).forced, 0);
});

Deno.test("grammar: a token that the mask lacks is refused", () => {
  const matcher = new GrammarMatcher(vocabulary, { kind: "regex", source: "a" });
  throws(() => matcher.consume(tinyTokenizer.encode("b")[0]!));
  matcher.free();
});

Deno.test("grammar: what is none, or is not supported, is an error that says so", () => {
  const make = (grammar: Grammar) => () => new GrammarMatcher(vocabulary, grammar).free();
  const json = (schema: unknown): Grammar => ({
    kind: "json_schema",
    source: JSON.stringify(schema),
  });
  throws(make({ kind: "regex", source: "(((" }), /regex/);
  throws(make({ kind: "lark", source: "start: missing" }), /missing/);
  throws(make(json({ type: "strange" })), /strange/);
  throws(make(json({ not: { type: "string" } })), /"not"/);
  throws(make(json({ $ref: "#/$defs/none" })), /./);
});

/** Grammars made to cost: each must end, one way or the other, within a second. */
const HOSTILE: Readonly<Record<string, Grammar>> = {
  "nested repetition": { kind: "regex", source: "((a{1000}){1000}){1000}" },
  "backtracking bait": { kind: "regex", source: "(a+)+(b|a)*c{0,900}(x|y|z){500}" },
  "ambiguous grammar": { kind: "lark", source: 'start: a\na: a a | "x" | ' },
  "a chain of rules": {
    kind: "lark",
    source: Array.from({ length: 999 }, (_, at) => `${at === 0 ? "start" : `r${at}`}: r${at + 1}`)
      .join("\n") + '\nr999: "x"',
  },
  "a chain of references": {
    kind: "json_schema",
    source: JSON.stringify({
      $ref: "#/$defs/d0",
      $defs: Object.fromEntries(
        Array.from(
          { length: 1_000 },
          (_, at) => [`d${at}`, at < 999 ? { $ref: `#/$defs/d${at + 1}` } : { const: 1 }],
        ),
      ),
    }),
  },
  "nested anyOf": {
    kind: "json_schema",
    source: JSON.stringify(
      Array.from({ length: 12 }).reduce<object>(
        (inner) => ({ anyOf: [inner, { type: "array", items: inner }] }),
        { type: "string" },
      ),
    ),
  },
  "many properties": {
    kind: "json_schema",
    source: JSON.stringify({
      type: "object",
      properties: Object.fromEntries(
        Array.from({ length: 2_040 }, (_, at) => [`p${at}`, { type: "string" }]),
      ),
    }),
  },
  "large enum": {
    kind: "json_schema",
    source: JSON.stringify({ enum: Array.from({ length: 20_000 }, (_, at) => `value ${at}`) }),
  },
  "long string": { kind: "json_schema", source: '{"type": "string", "minLength": 1000000}' },
};

for (const [name, grammar] of Object.entries(HOSTILE)) {
  Deno.test(`grammar: hostile, ${name}: an error or a text, within 2 s`, () => {
    const began = performance.now();
    try {
      const matcher = new GrammarMatcher(vocabulary, grammar);
      for (let step = 0; step < 50 && !matcher.isOver; step++) {
        matcher.consume(allowedIds(matcher)[0]!);
      }
      matcher.free();
    } catch (error) {
      ok(error instanceof Error && !(error instanceof WebAssembly.RuntimeError), `${error}`);
      match(error.message, /./);
    }
    const spent = performance.now() - began;
    ok(spent < 2_000, `took ${spent.toFixed(0)} ms`);
  });
}
