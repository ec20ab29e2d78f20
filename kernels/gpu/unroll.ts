/**
 * Expands marked loops textually, because naga guards every loop and drivers then do not unroll:
 * arrays indexed by the loop variable would stay in memory.
 *
 * The shader stays valid WGSL as written:
 *
 *     // @unroll
 *     for (var i = 0u; i < 4u; i++) {
 *       acc[i] += a[i] * b;
 *     }
 *
 * The bound may be a literal, a module-level `const` with a literal value, or one of `constants`:
 * those of other pieces of the shader and the `override`s that the pipeline sets. Marked loops
 * nest. The variable is replaced by its value as a whole word, and constant expressions in brackets
 * are left to the compiler.
 */

const MARK = /^[ \t]*\/\/ @unroll[ \t]*$/;
const LOOP = /^[ \t]*for \(var (\w+)(?:: u32)? = (\w+); \1 < (\w+); \1(?:\+\+| \+= 1u)\) \{[ \t]*$/;

/** Most copies one loop may make: a typing slip must not make a shader of megabytes. */
const UNROLL_LIMIT = 256;

/**
 * Returns `source` with every marked loop expanded; `overrides`: values that the pipeline sets.
 * Throws Error naming file and line otherwise.
 */
export function unroll(
  source: string,
  file: string,
  constants: ReadonlyMap<string, number> = new Map(),
): string {
  const known = new Map([...constants, ...literalConstants(source)]);
  return expand(source.split("\n"), known, file, 1).join("\n");
}

/** Module-level constants with a literal value. */
export function literalConstants(source: string): Map<string, number> {
  const constants = new Map<string, number>();
  for (const match of source.matchAll(/^const (\w+)(?:: u32)? = (\d+)u?;/gm)) {
    constants.set(match[1]!, Number(match[2]));
  }
  return constants;
}

/**
 * Gives module-level constants other literal values: `override`s can't be bounds of unrolled loops.
 * Throws Error where one isn't declared exactly once over all sources.
 */
export function setConstants(
  sources: readonly string[],
  values: Readonly<Record<string, number>>,
): string[] {
  const result = [...sources];
  for (const [name, value] of Object.entries(values)) {
    const declaration = new RegExp(`^const ${name}: u32 = \\d+u?;`, "gm");
    const count = sources.reduce((sum, text) => sum + (text.match(declaration)?.length ?? 0), 0);
    if (count !== 1) {
      throw new Error(`set constant "${name}": wanted one declaration, found ${count}`);
    }
    result.forEach((text, index) => {
      result[index] = text.replace(declaration, `const ${name}: u32 = ${value}u;`);
    });
  }
  return result;
}

function expand(
  lines: readonly string[],
  constants: ReadonlyMap<string, number>,
  file: string,
  firstLine: number,
): string[] {
  const result: string[] = [];
  for (let index = 0; index < lines.length; index++) {
    const line = lines[index]!;
    if (!MARK.test(line)) {
      result.push(line);
      continue;
    }
    const where = `${file}:${firstLine + index + 1}`;
    const loop = LOOP.exec(lines[index + 1] ?? "");
    if (loop === null) {
      throw new Error(
        `unroll ${where}: wanted "for (var i = A; i < B; i++) {", found "${
          lines[index + 1]?.trim() ?? "the end"
        }"`,
      );
    }
    const [, variable, from, to] = loop;
    const start = boundOf(from!, constants, where);
    const end = boundOf(to!, constants, where);
    if (end - start > UNROLL_LIMIT) {
      throw new Error(
        `unroll ${where}: wanted at most ${UNROLL_LIMIT} turns, found ${end - start}`,
      );
    }
    const close = closingLine(lines, index + 1, where);
    const body = lines.slice(index + 2, close);
    const word = new RegExp(`\\b${variable}\\b`, "g");
    for (let value = start; value < end; value++) {
      const copy = body.map((text) => text.replace(word, `${value}u`));
      result.push("{", ...expand(copy, constants, file, firstLine + index + 2), "}");
    }
    index = close;
  }
  return result;
}

function boundOf(text: string, constants: ReadonlyMap<string, number>, where: string): number {
  const literal = /^(\d+)u?$/.exec(text);
  const value = literal === null ? constants.get(text) : Number(literal[1]);
  if (value === undefined) {
    throw new Error(`unroll ${where}: wanted a literal or const bound, found "${text}"`);
  }
  return value;
}

/** Index of the line that closes the brace opened on line `open`. */
function closingLine(lines: readonly string[], open: number, where: string): number {
  let depth = 0;
  for (let index = open; index < lines.length; index++) {
    const code = lines[index]!.replace(/\/\/.*$/, "");
    for (const character of code) {
      if (character === "{") depth++;
      if (character === "}") depth--;
    }
    if (depth === 0) return index;
  }
  throw new Error(`unroll ${where}: wanted a closing brace, found the end`);
}
