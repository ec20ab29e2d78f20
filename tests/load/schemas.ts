/** JSON schemas of the kinds that programs ask for, all of bounded length. */
const text = { type: "string", maxLength: 12 };
const short = { type: "string", minLength: 1, maxLength: 6 };
const integer = { type: "integer", minimum: -50, maximum: 5_000 };
// Steps that doubles hold exactly; without any, a small model may write zeros without end.
const number = { type: "number", minimum: 0, maximum: 1, multipleOf: 0.25 };
const flag = { type: "boolean" };

/** All properties required, no others. */
const object = (properties: Record<string, unknown>, required = Object.keys(properties)) => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});
const list = (items: unknown, minItems: number, maxItems: number) => ({
  type: "array",
  items,
  minItems,
  maxItems,
});

export const SCHEMAS: readonly object[] = [
  object({ name: text }),
  object({ name: text, age: integer }),
  object({ name: text, age: integer, alive: flag }),
  object({ a: flag, b: flag, c: flag }, ["b"]),
  object({ a: integer, b: integer }, []),
  object({}),
  object({ x: { type: "null" } }),
  object({ x: { type: ["integer", "null"], minimum: 0, maximum: 9 } }),
  object({ x: { type: ["string", "null"], maxLength: 5 } }),
  object({ x: number }),
  object({ x: { type: "integer", exclusiveMinimum: 3, exclusiveMaximum: 6 } }),
  object({ x: { type: "integer", multipleOf: 5, minimum: 0, maximum: 100 } }),
  object({ color: { enum: ["red", "green", "blue"] } }),
  object({ mixed: { enum: [1, "one", null, true, [1], { one: 1 }] } }),
  object({ kind: { const: "circle" }, radius: number }),
  object({ tags: list(short, 0, 4) }),
  object({ scores: list(integer, 1, 5) }),
  object({ grid: list(list(flag, 2, 2), 1, 3) }),
  object({ people: list(object({ name: short, age: integer }), 1, 2) }),
  object({ outer: object({ middle: object({ inner: short }) }) }),
  object({ id: { type: "string", pattern: "^[a-z]{3}-[0-9]{2}$" } }),
  object({ code: { type: "string", pattern: "^(AB|CD)+$", maxLength: 8 } }),
  object({ date: { type: "string", format: "date" } }),
  object({ address: { type: "string", format: "ipv4" } }),
  object({ uuid: { type: "string", format: "uuid" } }),
  object({ "größe": integer, "名前": short, "🙂": flag }),
  object({ 'a"b\\c\n': flag }),
  object({ word: { enum: ["naïve", "日本", "🙂", 'quote"', "tab\t"] } }),
  { anyOf: [object({ a: integer }), object({ b: short })] },
  { anyOf: [integer, short, flag] },
  object({ value: { anyOf: [{ type: "null" }, list(integer, 0, 2), object({ z: flag })] } }),
  { oneOf: [{ const: "yes" }, { const: "no" }] },
  list(object({ k: short, v: integer }), 0, 3),
  { type: "array", prefixItems: [short, integer, flag], items: false, minItems: 3 },
  { type: "integer", minimum: -7, maximum: 7 },
  { type: "string", minLength: 2, maxLength: 9 },
  { enum: ["only"] },
  { $ref: "#/$defs/point", $defs: { point: object({ x: integer, y: integer }) } },
  {
    ...object({ from: { $ref: "#/$defs/p" }, to: { $ref: "#/$defs/p" } }),
    $defs: { p: object({ x: number }) },
  },
  {
    $ref: "#/$defs/tree",
    $defs: { tree: object({ value: flag, next: { anyOf: [{ type: "null" }, { const: 1 }] } }) },
  },
  { allOf: [object({ a: integer, b: short }), { required: ["a"] }] },
  { type: "object", patternProperties: { "^[a-c]{1,2}$": flag }, additionalProperties: false },
];
