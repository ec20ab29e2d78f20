/** The fields that Kedge refuses by name. docs/api.md lists all of them. */
import { z } from "zod";
import { RequestError } from "../errors.ts";
import type { JsonObject } from "./body.ts";
import { describe } from "./fields.ts";

/** A field that changes the answer in a way Kedge can't do: silence would be a wrong answer. */
export interface RefusedField {
  readonly name: string;
  /** Values that ask for nothing, beside null. */
  readonly neutral: readonly Neutral[];
  /** The values that ask for nothing, in words. */
  readonly wanted: string;
}

type Neutral = string | number | boolean | readonly string[];

export function nothing(name: string, wanted = "no value"): RefusedField {
  return { name, neutral: [], wanted };
}

/** A field of which some clients send values that ask for nothing. */
export function only(name: string, ...neutral: readonly Neutral[]): RefusedField {
  const values = neutral.map((value) => JSON.stringify(value)).join(" or ");
  return { name, neutral, wanted: `${values} or no value` };
}

const REFUSED: readonly RefusedField[] = [
  // Forms of an answer in other servers' languages, or under names that have another here.
  ...["grammar", "guided_json", "guided_regex", "guided_choice", "guided_grammar"]
    .map((name) => nothing(name)),
  ...["regex", "regex_pattern", "ebnf", "grammar_string", "structural_tag"]
    .map((name) => nothing(name)),
  // Which tokens may come.
  nothing("allowed_token_ids"),
  only("bad_words", []),
  only("use_beam_search", false),
  only("mirostat", 0),
  only("xtc_probability", 0),
  only("dry_multiplier", 0),
  only("top_n_sigma", -1, 0),
  only("dynatemp_range", 0),
  only("adaptive_target", -1),
  only("lora", []),
  nothing("truncate_prompt_tokens"),
  // What the answer tells.
  only("include_stop_str_in_output", false),
  nothing("prompt_logprobs"),
  nothing("logprob_token_ids"),
  only("n_probs", 0),
  only("return_token_ids", false),
];

export const REFUSED_IN_CHAT: readonly RefusedField[] = [
  ...REFUSED,
  nothing("functions"),
  nothing("function_call"),
  nothing("chat_template"),
  nothing("chat_template_kwargs"),
  only("add_generation_prompt", true),
  only("echo", false),
  only("modalities", ["text"]),
  nothing("audio"),
  nothing("web_search_options"),
];

export const REFUSED_IN_COMPLETIONS: readonly RefusedField[] = [
  ...REFUSED,
  only("best_of", 1),
  only("suffix", ""),
];

/** Throws RequestError for the first of them that asks for something. */
export function refuseFields(body: JsonObject, fields: readonly RefusedField[]): void {
  for (const { name, wanted, neutral } of fields) {
    const value = Object.hasOwn(body, name) ? body[name] : null;
    if (value === null || neutral.some((each) => isSame(value, each))) continue;
    throw new RequestError(
      `read field "${name}": wanted ${wanted}, found ${describe(value)}`,
      name,
      "unsupported_value",
    );
  }
}

function isSame(value: unknown, neutral: Neutral): boolean {
  if (typeof neutral !== "object") return value === neutral;
  return Array.isArray(value) && value.length === neutral.length &&
    neutral.every((each, at) => value[at] === each);
}

/** What is taken of them, for the API's document. */
export function refusedFields(fields: readonly RefusedField[]): Record<string, z.ZodType> {
  return Object.fromEntries(fields.map(({ name, neutral, wanted }) => {
    const shapes = neutral.map((value) => {
      if (typeof value !== "object") return z.literal(value);
      const item = value.length === 0 ? z.unknown() : z.enum(value);
      return z.array(item).min(value.length).max(value.length);
    });
    const shape = z.union([z.null(), ...shapes], { error: wanted });
    return [name, shape.optional().describe(`Refused: wanted ${wanted}`)];
  }));
}
