/** Request fields: bounded schemas whose refusals name field, wanted and found. */
import { z } from "zod";
import { RequestError } from "../errors.ts";
import { isObject } from "../json_text.ts";
import { MAX_NAME_CHARACTERS } from "../limits.ts";
import type { Slices } from "../slices.ts";
import type { JsonObject } from "./body.ts";

/**
 * Every schema below carries the `wanted` half of its refusal as zod's error message. All fields
 * accept null, which clients send for "not given"; required ones are written without `optional`.
 */
export const wanted = (text: string): { error: string } => ({ error: text });

export const optional = <T extends z.ZodType>(schema: T) => schema.nullish();

/** What schemas take whose checks are code, which zod can't describe: for the API's document. */
const shapes = new WeakMap<object, z.ZodType>();

/** `schema`, documented as `shape`, which must take what it takes. Copies of it are not. */
export function shownAs<T extends z.ZodType>(schema: T, shape: z.ZodType): T {
  shapes.set(schema, shape);
  return schema;
}

/** What a schema was said to take. */
export function shapeOf(schema: object): z.ZodType | undefined {
  return shapes.get(schema);
}

export function integerFrom(least: number, most: number) {
  const range = wanted(`an integer from ${least} to ${most}`);
  return z.int(range).min(least, range).max(most, range);
}

export function numberFrom(least: number, most: number) {
  const range = wanted(`a number from ${least} to ${most}`);
  return z.number(range).min(least, range).max(most, range);
}

export const flag = z.boolean(wanted("true or false"));

export const anyText = z.string(wanted("a string"));

export function textFrom(least: number, most: number) {
  const range = wanted(`a string of ${least} to ${most} characters`);
  return z.string(range).min(least, range).max(most, range);
}

const objectShape = z.record(z.string(), z.unknown());

export const anyObject = shownAs(
  z.custom<JsonObject>(isObject, wanted("an object")),
  objectShape,
);

/** A name or an id that is not empty. */
export const nameText = textFrom(1, MAX_NAME_CHARACTERS);

export function listFrom<T extends z.ZodType>(item: T, least: number, most: number) {
  const range = wanted(`a list of ${least} to ${most} items`);
  return z.array(item, range).min(least, range).max(most, range);
}

/** A text, or a list of parts as `list` has it; `text` is what is wanted in words. */
export function textOr<T extends z.ZodType>(list: T, text: string) {
  const schema = z.custom<string | z.output<T>>(
    (value) => typeof value === "string" || Array.isArray(value),
    wanted(text),
  ).superRefine((value, context) => {
    if (typeof value === "string") return;
    for (const { path, message } of list.safeParse(value).error?.issues ?? []) {
      context.addIssue({ code: "custom", path, message, input: value });
    }
  });
  return shownAs(schema, z.union([z.string(), list]));
}

/** A list field that is checked in slices, as one schema: for the API's document. */
export function wholeList({ item, least, most }: LongList) {
  return listFrom(item, least, most);
}

/** Checks a body; throws RequestError for the first field that is wrong. */
export function parseFields<T extends z.ZodType>(schema: T, body: JsonObject): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  refuse(issue, issue.path, body);
}

/** A list of `least` to `most` items, each to be checked by `item`. */
export interface LongList {
  readonly field: string;
  readonly item: z.ZodType;
  readonly least: number;
  readonly most: number;
}

/**
 * The items of a list field as they came, checked in slices; null when the field is not given. The
 * caller says what the checks make them.
 */
export async function parseList<Item>(
  { field, item, least, most }: LongList,
  body: JsonObject,
  slices: Slices,
): Promise<readonly Item[] | null> {
  const list = Object.hasOwn(body, field) ? body[field] : null;
  if (list === null || list === undefined) return null;
  if (!Array.isArray(list) || list.length < least || list.length > most) {
    refuse({ message: `a list of ${least} to ${most} items` }, [field], body);
  }
  for (const [at, value] of list.entries()) {
    const issue = item.safeParse(value).error?.issues[0];
    if (issue !== undefined) refuse(issue, [field, at, ...issue.path], body);
    await slices.giveWay();
  }
  return list;
}

/** The items of a list field that must be given. Throws RequestError where it is not. */
export function requireList<Item>(
  { field, least, most }: LongList,
  items: readonly Item[] | null,
): readonly Item[] {
  if (items !== null) return items;
  const message = `a list of ${least} to ${most} items`;
  throw new RequestError(`read field "${field}": wanted ${message}, found none`, field);
}

function refuse(
  { message }: { readonly message: string },
  path: readonly PropertyKey[],
  body: JsonObject,
): never {
  const field = fieldName(path);
  throw new RequestError(
    `read field "${field}": wanted ${message}, found ${describe(valueAt(body, path))}`,
    field,
  );
}

function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (name, part) =>
      typeof part === "number" ? `${name}[${part}]` : name + (name && ".") + String(part),
    "",
  );
}

function valueAt(body: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, part) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, part)
        ? (value as Record<PropertyKey, unknown>)[part]
        : undefined,
    body,
  );
}

/** What a value is, without the text in it. */
export function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return `${value}`;
  if (typeof value === "string") return `a string of ${value.length} characters`;
  return Array.isArray(value) ? `a list of ${value.length} items` : "an object";
}
