/** What a request wants of its answer's form, as a grammar. */
import { z } from "zod";
import type { Grammar } from "../../wasm/grammar.ts";
import { isObject } from "../json_text.ts";
import {
  MAX_CHOICE_CHARACTERS,
  MAX_CHOICE_STRINGS,
  MAX_GRAMMAR_CHARACTERS,
  MAX_GRAMMAR_LINES,
  MAX_SCHEMA_CHARACTERS,
  MAX_SCHEMA_KEYS,
  MAX_SCHEMA_REFERENCES,
} from "../limits.ts";
import type { JsonObject } from "./body.ts";
import {
  anyObject,
  anyText,
  flag,
  listFrom,
  optional,
  shownAs,
  textFrom,
  wanted,
} from "./fields.ts";

const checkedSchema = z.custom<JsonObject>(isObject, wanted("a JSON schema: an object"))
  .superRefine((schema, context) => {
    const message = schemaExcess(schema);
    if (message !== null) context.addIssue({ code: "custom", message, input: schema });
  });
const schemaObject = shownAs(checkedSchema, anyObject);

/**
 * What is wanted of a schema that is too large, or null. The compiler calls itself for each key and
 * each reference of a chain, and a thread's stack holds a few thousand of those calls.
 */
export function schemaExcess(schema: JsonObject): string | null {
  if (JSON.stringify(schema).length > MAX_SCHEMA_CHARACTERS) {
    return `a JSON schema of at most ${MAX_SCHEMA_CHARACTERS} characters`;
  }
  let keys = 0;
  let references = 0;
  const open: unknown[] = [schema];
  while (open.length > 0) {
    const value = open.pop();
    if (typeof value !== "object" || value === null) continue;
    if (!Array.isArray(value)) keys += Object.keys(value).length;
    if (Object.hasOwn(value, "$ref")) references++;
    for (const each of Object.values(value)) open.push(each);
  }
  if (keys > MAX_SCHEMA_KEYS) return `a JSON schema of at most ${MAX_SCHEMA_KEYS} keys`;
  if (references <= MAX_SCHEMA_REFERENCES) return null;
  return `a JSON schema of at most ${MAX_SCHEMA_REFERENCES} references`;
}

/** Bracket levels of a regular expression or a grammar: each is a call of the compiler's. */
const GRAMMAR_DEPTH = 100;

const pattern = textFrom(1, MAX_GRAMMAR_CHARACTERS).refine(
  (text) => depthOf(text) <= GRAMMAR_DEPTH,
  wanted(`at most ${GRAMMAR_DEPTH} levels of brackets`),
).refine(
  (text) => text.split("\n").length <= MAX_GRAMMAR_LINES,
  wanted(`at most ${MAX_GRAMMAR_LINES} lines`),
);

function depthOf(text: string): number {
  let depth = 0;
  let most = 0;
  for (const character of text) {
    if ("([{".includes(character)) most = Math.max(most, ++depth);
    else if (")]}".includes(character)) depth--;
  }
  return most;
}

const choices = listFrom(textFrom(1, MAX_CHOICE_CHARACTERS), 1, MAX_CHOICE_STRINGS);

/** The fields that ask for a form. OpenAI's, vLLM's and llama-server's names. */
export const grammarFields = {
  response_format: optional(z.discriminatedUnion("type", [
    z.object({ type: z.literal("text") }),
    // llama-server's form may hold a schema.
    z.object({ type: z.literal("json_object"), schema: optional(schemaObject) }),
    z.object({
      type: z.literal("json_schema"),
      json_schema: z.object({
        name: optional(anyText),
        description: optional(anyText),
        strict: optional(flag),
        schema: schemaObject,
      }, wanted("an object")),
    }),
  ], wanted('type "text", "json_object" or "json_schema"'))),
  structured_outputs: optional(
    z.object({
      json: optional(schemaObject),
      json_object: optional(flag),
      regex: optional(pattern),
      choice: optional(choices),
      grammar: optional(pattern),
    }, wanted("an object")),
  ),
  json_schema: optional(schemaObject),
};

export type GrammarFields = z.output<z.ZodObject<typeof grammarFields>>;

/** How a schema's text is written: as the models were trained to write JSON. */
const WRITTEN = { item_separator: ", ", key_separator: ": ", whitespace_flexible: false };

export function schemaText(schema: JsonObject): string {
  return JSON.stringify({ ...schema, "x-guidance": WRITTEN });
}

/** null where nothing is asked for. */
export function grammarOf(fields: GrammarFields): Grammar | null {
  const [form] = formsOf(fields);
  return form?.() ?? null;
}

/** How many forms a request asks for: more than one is none that can be kept. */
export function countForms(fields: GrammarFields): number {
  return [...formsOf(fields)].length;
}

/** Written only when called: a schema may be long. */
type Form = () => Grammar;

function* formsOf(
  { response_format: format, structured_outputs: outputs, json_schema }: GrammarFields,
): Generator<Form> {
  const json = (schema: JsonObject): Form => () => ({
    kind: "json_schema",
    source: schemaText(schema),
  });
  if (format?.type === "json_object") yield json(format.schema ?? { type: "object" });
  if (format?.type === "json_schema") yield json(format.json_schema.schema);
  if (json_schema) yield json(json_schema);
  if (outputs?.json) yield json(outputs.json);
  if (outputs?.json_object) yield json({ type: "object" });
  if (outputs?.regex) {
    const source = outputs.regex;
    yield () => ({ kind: "regex", source });
  }
  if (outputs?.grammar) {
    const source = outputs.grammar;
    yield () => ({ kind: "lark", source });
  }
  if (outputs?.choice) {
    // JSON's strings are Lark's.
    const texts = outputs.choice.map((text) => JSON.stringify(text));
    yield () => ({ kind: "lark", source: `start: ${texts.join(" | ")}` });
  }
}
