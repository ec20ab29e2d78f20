import assert from "node:assert";
import type { Kernel, ParamTypes } from "../../kernels/gpu/kernel.ts";

const FOLDER = new URL("../../kernels/", import.meta.url);
/** The recorder binds this many bytes of parameters. */
const PARAM_BYTES_MAX = 256;

/** Base names of all kernels: every .wgsl file of the folder itself. */
function kernelNames(): string[] {
  return [...Deno.readDirSync(FOLDER)]
    .filter((entry) => entry.isFile && entry.name.endsWith(".wgsl"))
    .map((entry) => entry.name.slice(0, -".wgsl".length))
    .sort();
}

/** The kernel that the host file beside `<name>.wgsl` defines. */
async function definitionOf(name: string): Promise<Kernel<ParamTypes>> {
  const exports: Record<string, unknown> = await import(new URL(`${name}.ts`, FOLDER).href);
  const found = Object.values(exports).find((value) =>
    typeof value === "object" && value !== null && "bindings" in value && "params" in value &&
    "name" in value && value.name === name
  );
  assert.ok(found !== undefined, `"${name}.ts" exports no kernel named "${name}"`);
  return found as Kernel<ParamTypes>;
}

/** [name, type] of each field of `struct Params`, in order. */
function structFields(source: string, name: string): [string, string][] {
  const body = /struct Params \{([^}]*)\}/.exec(source)?.[1];
  assert.ok(body !== undefined, `"${name}.wgsl" has no struct Params`);
  const lines = body.replace(/\/\/.*$/gm, "").split(",").map((line) => line.trim());
  return lines.filter((line) => line !== "").map((line) => {
    const field = /^(\w+): (u32|f32)$/.exec(line);
    assert.ok(field !== null, `"${name}.wgsl": Params field "${line}"`);
    return [field[1]!, field[2]!];
  });
}

/** "read" or "write" of each storage binding, in order from binding 1. */
function storageBindings(source: string, name: string): string[] {
  const pattern = /@group\(0\) @binding\((\d+)\)\s+var<storage, (read|read_write)>/g;
  return [...source.matchAll(pattern)].map(([, binding, access], index) => {
    assert.equal(Number(binding), index + 1, `"${name}.wgsl": order of bindings`);
    return access === "read" ? "read" : "write";
  });
}

for (const name of kernelNames()) {
  Deno.test(`${name}.wgsl declares the Params and bindings that its host file writes`, async () => {
    const kernel = await definitionOf(name);
    const source = Deno.readTextFileSync(new URL(`${name}.wgsl`, FOLDER));
    assert.deepEqual(Object.entries(kernel.params), structFields(source, name));
    assert.deepEqual([...kernel.bindings], storageBindings(source, name));
    assert.match(source, /@group\(0\) @binding\(0\) var<uniform> params: Params;/);
    assert.ok(4 * Object.keys(kernel.params).length <= PARAM_BYTES_MAX);
  });
}
