/** Words for error messages about files that may be hostile: one line, printable, short. */

import { ModelError } from "./errors.ts";

const MAX_SHOWN_CHARACTERS = 120;

/** Anything that could break the line, move the cursor or reorder text. */
// deno-lint-ignore no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** One printable line of at most 120 characters. */
export function clean(text: string): string {
  const line = text.slice(0, 2 * MAX_SHOWN_CHARACTERS).toWellFormed().replace(
    UNPRINTABLE,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return line.length <= MAX_SHOWN_CHARACTERS ? line : `${line.slice(0, MAX_SHOWN_CHARACTERS)}...`;
}

/** A name from a file, in double quotes. */
export function quote(text: string): string {
  return `"${clean(text.slice(0, 2 * MAX_SHOWN_CHARACTERS).replace(/["\\]/g, "\\$&"))}"`;
}

/** A JSON value as found: short values whole, long ones cut. Undefined is a missing key. */
export function show(value: unknown): string {
  if (value === undefined) return "none";
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value) && value.length > 16) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return "an object";
  return clean(JSON.stringify(value));
}

/** A shape as in `[4096, 2304]`. */
export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/** Throws the refusal of a model: `ACTION: wanted WANTED, found FOUND`. */
export function refuse(action: string, wanted: string, found: string): never {
  throw new ModelError(`${action}: wanted ${wanted}, found ${found}`);
}
