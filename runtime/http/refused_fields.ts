/** The fields that Kedge refuses by name. */
import { RequestError } from "../errors.ts";
import type { JsonObject } from "./body.ts";
import { describe } from "./fields.ts";

/** A field that changes the answer in a way Kedge can't do yet: silence would be a wrong answer. */
interface RefusedField {
  readonly name: string;
  /** The values that ask for nothing, in words. */
  readonly wanted: string;
  readonly accepts: (value: unknown) => boolean;
}

export const nothing = (name: string, wanted = "no value"): RefusedField => ({
  name,
  wanted,
  accepts: () => false,
});

export const only = (name: string, value: unknown): RefusedField => ({
  name,
  wanted: `${value} or no value`,
  accepts: (given) => given === value,
});

const REFUSED: readonly RefusedField[] = [
  nothing("grammar"),
  nothing("guided_json"),
  nothing("guided_regex"),
  nothing("guided_choice"),
  nothing("guided_grammar"),
];

export const REFUSED_IN_CHAT: readonly RefusedField[] = [
  ...REFUSED,
  nothing("functions"),
  nothing("function_call"),
  nothing("chat_template"),
  nothing("chat_template_kwargs"),
];

export const REFUSED_IN_COMPLETIONS: readonly RefusedField[] = [
  ...REFUSED,
  only("best_of", 1),
  { name: "suffix", wanted: "an empty string or no value", accepts: (value) => value === "" },
];

/** Throws RequestError for the first of them that asks for something. */
export function refuseFields(body: JsonObject, fields: readonly RefusedField[]): void {
  for (const { name, wanted, accepts } of fields) {
    const value = Object.hasOwn(body, name) ? body[name] : null;
    if (value === null || accepts(value)) continue;
    throw new RequestError(
      `read field "${name}": wanted ${wanted}, found ${describe(value)}`,
      name,
      "unsupported_value",
    );
  }
}
