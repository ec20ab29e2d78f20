import assert from "node:assert";
import { unroll } from "../../kernels/gpu/unroll.ts";

Deno.test("unroll() leaves unmarked text alone", () => {
  const source = "fn main() {\n  for (var i = 0u; i < 4u; i++) {\n    a(i);\n  }\n}";
  assert.strictEqual(unroll(source, "x.wgsl"), source);
});

Deno.test("unroll() copies a marked loop's body with the variable's values", () => {
  const source = "const N = 3u;\n  // @unroll\n  for (var i = 1u; i < N; i++) {\n" +
    "    acc[i] += x[i + 1u] * index;\n  }\nend";
  const expected = "const N = 3u;\n{\n    acc[1u] += x[1u + 1u] * index;\n}\n{\n" +
    "    acc[2u] += x[2u + 1u] * index;\n}\nend";
  assert.strictEqual(unroll(source, "x.wgsl"), expected);
});

Deno.test("unroll() expands nested marked loops", () => {
  const source = "// @unroll\nfor (var i = 0u; i < 2u; i++) {\n// @unroll\n" +
    "for (var j = 0u; j < 2u; j++) {\nc[i][j] = 1.0;\n}\n}";
  const found = unroll(source, "x.wgsl").split("\n").filter((line) => line.startsWith("c"));
  assert.deepStrictEqual(found, [
    "c[0u][0u] = 1.0;",
    "c[0u][1u] = 1.0;",
    "c[1u][0u] = 1.0;",
    "c[1u][1u] = 1.0;",
  ]);
});

Deno.test("unroll() takes bounds that the pipeline overrides", () => {
  const source = "override N: u32 = 8u;\n// @unroll\nfor (var i = 0u; i < N; i++) {\na(i);\n}";
  const lines = unroll(source, "x.wgsl", new Map([["N", 2]])).split("\n");
  assert.deepStrictEqual(lines.filter((line) => line.startsWith("a")), ["a(0u);", "a(1u);"]);
});

Deno.test("unroll() names file and line of what it can't expand", () => {
  const wrong = [
    ["// @unroll\nlet x = 1;", /x\.wgsl:2: wanted "for .*found "let x = 1;"/],
    ["// @unroll\nfor (var i = 0u; i < params.n; i++) {\n}", /x\.wgsl:2: wanted "for/],
    ["// @unroll\nfor (var i = 0u; i < count; i++) {\n}", /const bound, found "count"/],
    ["// @unroll\nfor (var i = 0u; i < 9999u; i++) {\n}", /at most 256 turns, found 9999/],
    ["// @unroll\nfor (var i = 0u; i < 2u; i++) {", /closing brace/],
  ] as const;
  for (const [source, message] of wrong) assert.throws(() => unroll(source, "x.wgsl"), message);
});
