/** What a committed package is compared by: its sources' hash and the sections of its wasm. */

const hex = (bytes: ArrayBuffer) =>
  Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");

const sha256 = async (bytes: Uint8Array<ArrayBuffer>) =>
  hex(await crypto.subtle.digest("SHA-256", bytes));

function filesBelow(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory ? filesBelow(path) : [path];
  });
}

/**
 * SHA-256 (hex) over Cargo.toml, Cargo.lock, build.rs if there is one, and all files below src:
 * each
 * as its path inside the crate and its own SHA-256, in the order of the paths.
 */
export async function sourceHash(crateFolder: string): Promise<string> {
  const single = ["Cargo.toml", "Cargo.lock", "build.rs"];
  const paths = [...Deno.readDirSync(crateFolder)]
    .filter((entry) => single.includes(entry.name))
    .map((entry) => `${crateFolder}/${entry.name}`);
  paths.push(...filesBelow(`${crateFolder}/src`));
  const lines = await Promise.all(
    paths.sort().map(async (path) => {
      const bytes = await Deno.readFile(path);
      return `${path.slice(crateFolder.length + 1)} ${await sha256(bytes)}\n`;
    }),
  );
  return await sha256(new TextEncoder().encode(lines.join("")));
}

interface Section {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const sectionNames = [
  ...["custom", "type", "import", "function", "table", "memory", "global", "export", "start"],
  ...["element", "code", "data", "data count", "tag"],
];

/** The sections of a WebAssembly binary, custom ones left out. */
function behaviourSections(wasm: Uint8Array): Section[] {
  const sections: Section[] = [];
  let at = 8;
  while (at < wasm.length) {
    const id = wasm[at++]!;
    let length = 0;
    for (let shift = 0;; shift += 7) {
      const byte = wasm[at++]!;
      length += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    const name = sectionNames[id] ?? String(id);
    if (id !== 0) sections.push({ name, bytes: wasm.subarray(at, at + length) });
    at += length;
  }
  return sections;
}

/** Names of the sections, custom ones aside, that two WebAssembly binaries do not share. */
export function sectionsThatDiffer(a: Uint8Array, b: Uint8Array): string[] {
  const [left, right] = [behaviourSections(a), behaviourSections(b)];
  const names = new Set([...left, ...right].map((section) => section.name));
  return [...names].filter((name) => {
    const [x, y] = [left, right].map((list) => list.find((s) => s.name === name)?.bytes);
    if (x === undefined || y === undefined || x.length !== y.length) return true;
    return x.some((byte, i) => byte !== y[i]);
  });
}

/** Copies the files of one folder into another, over what is there. */
export async function copy(from: string, to: string): Promise<void> {
  for (const entry of Deno.readDirSync(from)) {
    if (entry.isFile) await Deno.copyFile(`${from}/${entry.name}`, `${to}/${entry.name}`);
  }
}
