/** Habits that a program can check. A limit may be lowered, never raised. */
import assert from "node:assert";
import ts from "typescript";
import { importsOf, parse, projectFiles, readText, visit } from "./tools/source_tree.ts";

const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const KERNEL_LINES_MAX = 150;
const LINE_COLUMNS_MAX = 100;

const files = projectFiles();
const isScript = (path: string) => path === "kedge" || path === ".ci/run" || path.endsWith(".sh");
const code = files.filter((path) => /\.(ts|rs|wgsl)$/.test(path) || isScript(path));
const typescript = code.filter((path) => path.endsWith(".ts"));
const shaders = code.filter((path) => path.endsWith(".wgsl"));
const kernels = shaders.filter((path) => !path.startsWith("kernels/lib/"));

function lineCount(path: string): number {
  return readText(path).trimEnd().split("\n").length;
}

/** `path:line` of every line that `isWrong`. */
function linesWhere(paths: readonly string[], isWrong: (line: string) => boolean): string[] {
  return paths.flatMap((path) =>
    readText(path).split("\n").flatMap((line, index) =>
      isWrong(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 80)}`] : []
    )
  );
}

/** Lists all that was found, which assert.deepEqual would cut off. */
function assertNone(found: readonly string[]): void {
  assert.ok(found.length === 0, `wanted none, found ${found.length}:\n  ${found.join("\n  ")}`);
}

Deno.test(`files have at most ${FILE_LINES_MAX} lines, kernels ${KERNEL_LINES_MAX}`, () => {
  const sizes = code.map((path) => ({ path, lines: lineCount(path) }))
    .sort((a, b) => b.lines - a.lines);
  console.log("ten largest files:");
  for (const { path, lines } of sizes.slice(0, 10)) console.log(`${lines}`.padStart(5), path);
  const tooLong = sizes.filter(({ path, lines }) =>
    lines > (path.endsWith(".wgsl") ? KERNEL_LINES_MAX : FILE_LINES_MAX)
  );
  assertNone(tooLong.map(({ path, lines }) => `${path}: ${lines} lines`));
});

Deno.test(`lines have at most ${LINE_COLUMNS_MAX} columns and no space at their end`, () => {
  assertNone(linesWhere(code, (line) => [...line].length > LINE_COLUMNS_MAX));
  assertNone(linesWhere(code, (line) => /[ \t\r]$/.test(line)));
});

Deno.test(`TypeScript functions have at most ${FUNCTION_LINES_MAX} lines`, () => {
  const tooLong: string[] = [];
  for (const path of typescript) {
    const tree = parse(path);
    visit(tree, (node) => {
      if (!ts.isFunctionLike(node)) return;
      const line = (at: number) => tree.getLineAndCharacterOfPosition(at).line;
      const first = line(node.getStart());
      const lines = line(node.getEnd()) - first + 1;
      if (lines > FUNCTION_LINES_MAX) tooLong.push(`${path}:${first + 1}: ${lines} lines`);
    });
  }
  assertNone(tooLong);
});

/** Relies on rustfmt: a function ends at the first brace with the indentation of its beginning. */
Deno.test(`Rust functions have at most ${FUNCTION_LINES_MAX} lines`, () => {
  const tooLong: string[] = [];
  for (const path of code.filter((path) => path.endsWith(".rs"))) {
    const lines = readText(path).split("\n");
    lines.forEach((line, first) => {
      const indent = /^( *)(pub(\(\w+\))? )?(const )?(unsafe )?fn \w/.exec(line)?.[1];
      if (indent === undefined || line.endsWith("}")) return;
      const length = lines.slice(first).findIndex((text) => text.startsWith(`${indent}}`)) + 1;
      if (length > FUNCTION_LINES_MAX) tooLong.push(`${path}:${first + 1}: ${length} lines`);
    });
  }
  assertNone(tooLong);
});

Deno.test("nothing is left over, evaluated from text, or bound to one machine", () => {
  // Written in pieces so that this file does not find itself.
  const leftOver = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);
  assertNone(linesWhere(code, (line) => leftOver.test(line)));
  const text = files.filter((path) =>
    !path.endsWith("Cargo.lock") &&
    (code.includes(path) || /\.(md|json|toml|lock|py|html|css|jinja)$/.test(path))
  );
  const folders = ["wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers"].join("|");
  const hosts = ["npm" + "js\\.", "crates" + "\\.io", "pypi" + "\\.org", "deb" + "ian\\.org"];
  const machine = new RegExp(`(^|[\\s"'\`(=:])/(${folders})/|${hosts.join("|")}`);
  assertNone(linesWhere(text, (line) => machine.test(line)));
  const evaluating: string[] = [];
  for (const path of typescript) {
    visit(parse(path), (node) => {
      if (!ts.isCallExpression(node) && !ts.isNewExpression(node)) return;
      const name = node.expression.getText();
      if (name === "eval" || name === "Function") evaluating.push(`${path}: ${name}`);
    });
  }
  assertNone(evaluating);
});

Deno.test("every kernel has its host file, its one importer, and a test that names it", () => {
  const importers = new Map<string, string[]>();
  for (const path of typescript) {
    for (const imported of importsOf(path)) {
      importers.set(imported, [...importers.get(imported) ?? [], path]);
    }
  }
  const wrong = kernels.flatMap((path) => {
    const host = path.replace(/\.wgsl$/, ".ts");
    const found = (importers.get(path) ?? []).filter((importer) => !importer.startsWith("tests/"));
    return found.length === 1 && found[0] === host
      ? []
      : [`${path}: wanted ${host} alone to import it, found ${found.join(", ") || "none"}`];
  });
  assertNone(wrong);
  const tests = typescript.filter((path) => path.startsWith("tests/kernels/")).map(readText)
    .join("\n");
  const untested = kernels.filter((path) => {
    const name = path.replace(/^.*\//, "").replace(/\.wgsl$/, "");
    return !new RegExp(`\\b${name}\\b`).test(tests);
  });
  assertNone(untested);
});

Deno.test("every shared shader piece is used", () => {
  const imported = new Set(typescript.flatMap(importsOf));
  assertNone(shaders.filter((path) => !imported.has(path)));
});

Deno.test("the documents that a user looks for exist", () => {
  for (const path of ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"]) {
    assert.ok(readText(path).trim().length > 0, path);
  }
});
