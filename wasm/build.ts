/**
 * Builds the Rust crates of this folder into the packages that are committed beside them.
 *
 *     deno run -A wasm/build.ts [--check] [text|cpu ...]
 *
 * Without names, every crate. `--check` rebuilds into a temporary folder and compares: see
 * {@link checkPackage}. A package is `wasm/<crate>/pkg` (or `pkg/<variant>`) and holds the wasm-
 * bindgen
 * glue, its types, the wasm and `build.json`, the record of what it was built from.
 */
import { copy, sectionsThatDiffer, sourceHash } from "./package.ts";
import { findToolchain, type Toolchain } from "./toolchain.ts";

interface Variant {
  /** Folder below `pkg`; "" for the only variant. */
  readonly folder: string;
  readonly targetFeatures: string;
  /** Bytes of stack; undefined: the linker's 1 MiB. */
  readonly stackBytes?: number;
  /** Whether several threads share one memory. */
  readonly threads?: boolean;
}

export interface BuildRecord {
  /** SHA-256 over the crate's sources and locked dependencies. */
  readonly sources: string;
  readonly targetFeatures: string;
  readonly rustc: string;
  readonly linker: string;
  readonly wasmBindgen: string;
}

const threadFeatures = "+atomics,+bulk-memory,+mutable-globals";

/** What the linker must be told for a memory that threads share: 4 GiB at most, handed in. */
const threadLinking = [
  ...["--shared-memory", "--import-memory", `--max-memory=${2 ** 32}`],
  ...["__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"].map((name) =>
    `--export=${name}`
  ),
].flatMap((argument) => ["-C", `link-arg=${argument}`]);

export const crates: Readonly<Record<string, readonly Variant[]>> = {
  text: [{ folder: "", targetFeatures: "+simd128,+relaxed-simd" }],
  quantize: [{ folder: "", targetFeatures: "+simd128" }],
  // Compiling a grammar calls itself for each property of a schema.
  grammar: [{ folder: "", targetFeatures: "+simd128", stackBytes: 2 ** 25 }],
  cpu: [
    { folder: "simd128", targetFeatures: `+simd128,${threadFeatures}`, threads: true },
    {
      folder: "relaxed-simd",
      targetFeatures: `+simd128,+relaxed-simd,${threadFeatures}`,
      threads: true,
    },
  ],
};

const wasmFolder = import.meta.dirname!;
const projectFolder = `${wasmFolder}/..`;
const target = "wasm32-unknown-unknown";

/** The crate's folder, and the package folder of one of its variants. */
export function packageFolder(crate: string, variant: Variant): string {
  return `${wasmFolder}/${crate}/pkg${variant.folder === "" ? "" : `/${variant.folder}`}`;
}

async function run(command: string, args: string[], options: Deno.CommandOptions): Promise<void> {
  const { success, code } = await new Deno.Command(command, { args, ...options }).spawn().status;
  if (!success) throw new Error(`run "${command} ${args.join(" ")}": wanted exit 0, found ${code}`);
}

/** Where cargo keeps dependencies' sources: a folder a registry, named after its address. */
function registryFolders(toolchain: Toolchain): string[] {
  const sources = `${toolchain.cargoHome}/registry/src`;
  return [...Deno.readDirSync(sources)].map((entry) => `${sources}/${entry.name}`);
}

/** Compiles one variant of a crate and writes its package to `outFolder`. */
async function buildPackage(
  crate: string,
  variant: Variant,
  toolchain: Toolchain,
  outFolder: string,
): Promise<void> {
  const crateFolder = `${wasmFolder}/${crate}`;
  await run(toolchain.cargo, ["fetch", "--quiet", "--locked"], {
    cwd: crateFolder,
    env: toolchain.env,
  });
  const targetFolder = `${crateFolder}/target/${variant.folder || "default"}`;
  // No path of the building machine may land in panic messages.
  const remap = [
    [`${crateFolder}/`, ""],
    ...registryFolders(toolchain).map((folder) => [`${folder}/`, "registry/"]),
    [toolchain.rustSource, "rust"],
    [toolchain.sysroot, "sysroot"],
  ].map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
  const { targetFeatures, stackBytes, threads } = variant;
  const stack = stackBytes === undefined ? [] : ["-C", `link-arg=-zstack-size=${stackBytes}`];
  const flags = ["-C", `target-feature=${targetFeatures}`, ...stack, ...remap];
  if (threads) flags.push(...threadLinking);
  await run(toolchain.cargo, [
    "build",
    "--release",
    "--locked",
    "--target",
    target,
    ...toolchain.cargoArgs,
  ], {
    cwd: crateFolder,
    env: {
      ...toolchain.env,
      CARGO_TARGET_DIR: targetFolder,
      CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f"),
    },
  });
  const name = `kedge_${crate}`;
  await Deno.mkdir(outFolder, { recursive: true });
  for (const entry of [...Deno.readDirSync(outFolder)]) {
    if (entry.isFile) await Deno.remove(`${outFolder}/${entry.name}`);
  }
  await run(toolchain.wasmBindgen, [
    ...["--target", "web", "--out-name", name, "--out-dir", outFolder],
    ...["--remove-name-section", "--remove-producers-section"],
    `${targetFolder}/${target}/release/${name}.wasm`,
  ], {});
  const record: BuildRecord = {
    sources: await sourceHash(crateFolder),
    targetFeatures: variant.targetFeatures,
    rustc: toolchain.rustcVersion,
    linker: toolchain.linkerVersion,
    wasmBindgen: toolchain.wasmBindgenVersion,
  };
  await Deno.writeTextFile(`${outFolder}/build.json`, JSON.stringify(record, null, 2) + "\n");
}

/**
 * Rebuilds one variant and compares it with the committed package; returns what is wrong.
 *
 * With the recorded toolchain the glue and every section of the wasm but the custom ones (names,
 * producers) must be equal. Another compiler may rightly give other bytes: then the crate's
 * TypeScript tests run on the rebuilt package in place of the committed one, and must pass.
 */
async function checkPackage(
  crate: string,
  variant: Variant,
  toolchain: Toolchain,
): Promise<string[]> {
  const committed = packageFolder(crate, variant);
  const recordFile = `${committed}/build.json`;
  let record: BuildRecord;
  try {
    record = JSON.parse(await Deno.readTextFile(recordFile));
  } catch (error) {
    return [`read "${recordFile}": ${error instanceof Error ? error.message : error}`];
  }
  const sources = await sourceHash(`${wasmFolder}/${crate}`);
  if (record.sources !== sources) {
    return [
      `check "${committed}": wanted a package built from sources ${sources}, ` +
      `found ${record.sources} (build it again and commit it)`,
    ];
  }
  const rebuilt = await Deno.makeTempDir({ prefix: `kedge-${crate}-` });
  try {
    await buildPackage(crate, variant, toolchain, rebuilt);
    const found: BuildRecord = JSON.parse(await Deno.readTextFile(`${rebuilt}/build.json`));
    if (JSON.stringify(found) === JSON.stringify(record)) {
      return await comparePackages(committed, rebuilt, `kedge_${crate}`);
    }
    console.log(
      `${crate}: the committed package is by ${describe(record)}, this one by ${
        describe(found)
      }: ` +
        "running the crate's tests on the rebuilt package",
    );
    return await testPackage(crate, committed, rebuilt);
  } finally {
    await Deno.remove(rebuilt, { recursive: true });
  }
}

const describe = (record: BuildRecord) =>
  `"${record.rustc}", "${record.linker}", wasm-bindgen ${record.wasmBindgen}`;

async function comparePackages(committed: string, rebuilt: string, name: string) {
  const problems: string[] = [];
  const names = (folder: string) =>
    [...Deno.readDirSync(folder)].map((e) => e.name).sort().join(" ");
  if (names(committed) !== names(rebuilt)) {
    problems.push(
      `check "${committed}": wanted files ${names(rebuilt)}, found ${names(committed)}`,
    );
  }
  for (const file of [`${name}.js`, `${name}.d.ts`, `${name}_bg.wasm.d.ts`]) {
    const [a, b] = await Promise.all(
      [committed, rebuilt].map((folder) => Deno.readTextFile(`${folder}/${file}`)),
    );
    if (a !== b) problems.push(`check "${committed}/${file}": differs from the rebuilt file`);
  }
  const file = `${name}_bg.wasm`;
  const [a, b] = await Promise.all(
    [committed, rebuilt].map((folder) => Deno.readFile(`${folder}/${file}`)),
  );
  for (const section of sectionsThatDiffer(a!, b!)) {
    problems.push(`check "${committed}/${file}": section ${section} differs from the rebuilt file`);
  }
  return problems;
}

/** Runs the crate's tests with `rebuilt` in the place of `committed`, then puts that back. */
async function testPackage(crate: string, committed: string, rebuilt: string): Promise<string[]> {
  const tests = [...Deno.readDirSync(`${projectFolder}/tests/wasm`)]
    .map((entry) => entry.name)
    .filter((name) => name.startsWith(`${crate}_`) && name.endsWith("_test.ts"))
    .map((name) => `tests/wasm/${name}`);
  if (tests.length === 0) return [`check crate "${crate}": wanted tests/wasm/${crate}_*_test.ts`];
  const aside = await Deno.makeTempDir({ prefix: `kedge-${crate}-committed-` });
  await copy(committed, aside);
  try {
    await copy(rebuilt, committed);
    await run(Deno.execPath(), ["test", "-A", "--no-check", ...tests], { cwd: projectFolder });
    return [];
  } catch (error) {
    return [`check the rebuilt "${committed}": ${error instanceof Error ? error.message : error}`];
  } finally {
    await copy(aside, committed);
    await Deno.remove(aside, { recursive: true });
  }
}

async function main(args: string[]): Promise<number> {
  const check = args.includes("--check");
  const names = args.filter((arg) => arg !== "--check");
  const unknown = names.filter((name) => !(name in crates));
  if (unknown.length > 0) {
    const known = Object.keys(crates).join(", ");
    console.error(`build crate "${unknown[0]}": wanted one of ${known} or --check`);
    return 2;
  }
  const toolchain = await findToolchain();
  if (typeof toolchain === "string") {
    console.error(toolchain);
    return 1;
  }
  const problems: string[] = [];
  for (const crate of names.length > 0 ? names : Object.keys(crates)) {
    for (const variant of crates[crate]!) {
      const folder = packageFolder(crate, variant);
      const start = performance.now();
      if (check) problems.push(...await checkPackage(crate, variant, toolchain));
      else await buildPackage(crate, variant, toolchain, folder);
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      const name = [crate, variant.folder].filter((part) => part !== "").join("/");
      console.log(`${check ? "checked" : "built"} ${name} in ${seconds} s`);
    }
  }
  for (const problem of problems) console.error(problem);
  return problems.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  const code = await main(Deno.args).catch((error) => {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  });
  Deno.exit(code);
}
