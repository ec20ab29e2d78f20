/** Dependencies point one way: main.ts -> runtime/ -> kernels/, wasm/. */
import assert from "node:assert";
import { importsOf, projectFiles, readText } from "./tools/source_tree.ts";

/** What each part of the product may import; tests may import everything. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  "main.ts": ["runtime"],
  runtime: ["runtime", "kernels", "wasm", "models"],
  kernels: ["kernels"],
  wasm: ["wasm"],
};

const product = projectFiles().filter((path) =>
  path.endsWith(".ts") && Object.hasOwn(ALLOWED, part(path))
);

/** The first folder of a path, or the file itself at the top. */
function part(path: string): string {
  return path.split("/")[0]!;
}

function folderOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

/** Imports of the product's own files, as [importer, imported]. */
function edges(): [string, string][] {
  return product.flatMap((path) =>
    importsOf(path)
      .filter((imported) => /\.(ts|js|wgsl)$/.test(imported))
      .map((imported): [string, string] => [path, imported])
  );
}

Deno.test("imports point one way", () => {
  assert.ok(product.length > 50, `wanted the product's files, found ${product.length}`);
  const wrong = edges().filter(([from, to]) => !ALLOWED[part(from)]!.includes(part(to)));
  assert.equal(wrong.map((edge) => edge.join(" -> ")).join("\n"), "");
});

Deno.test("imports name files that exist", () => {
  const missing = edges().filter(([_, to]) => {
    try {
      return !Deno.statSync(new URL(`../${to}`, import.meta.url)).isFile;
    } catch {
      return true;
    }
  });
  assert.equal(missing.map((edge) => edge.join(" -> ")).join("\n"), "");
});

Deno.test("folders do not import each other in a circle", () => {
  const next = new Map<string, Map<string, string>>();
  for (const [from, to] of edges()) {
    const [a, b] = [folderOf(from), folderOf(to)];
    if (a === b) continue;
    if (!next.has(a)) next.set(a, new Map());
    next.get(a)!.set(b, `${from} -> ${to}`);
  }
  const done = new Set<string>();
  const visitFolder = (folder: string, trail: readonly string[]): void => {
    const start = trail.indexOf(folder);
    if (start !== -1) {
      const circle = [...trail.slice(start), folder];
      const steps = circle.slice(1).map((to, index) => next.get(circle[index]!)!.get(to)!);
      assert.fail(`wanted no circle, found:\n  ${steps.join("\n  ")}`);
    }
    if (done.has(folder)) return;
    for (const to of next.get(folder)?.keys() ?? []) visitFolder(to, [...trail, folder]);
    done.add(folder);
  };
  for (const folder of next.keys()) visitFolder(folder, []);
});

Deno.test("only kernels/gpu/ asks for an adapter, only its readback.ts maps buffers", () => {
  const naming = (pattern: RegExp) => product.filter((path) => pattern.test(readText(path)));
  const callers = naming(/\bnavigator\s*\.\s*gpu\b/);
  assert.ok(callers.length > 0);
  assert.deepEqual(callers.filter((path) => folderOf(path) !== "kernels/gpu"), []);
  assert.deepEqual(naming(/\b(mapAsync|getMappedRange)\s*\(/), ["kernels/gpu/readback.ts"]);
});
