/** Finds a Rust toolchain that can compile to WASM, or says what to install. */

export interface Toolchain {
  readonly cargo: string;
  readonly cargoArgs: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cargoHome: string;
  readonly sysroot: string;
  /** Where the standard library's sources are when it is compiled too. */
  readonly rustSource: string;
  readonly rustcVersion: string;
  readonly linkerVersion: string;
  readonly wasmBindgen: string;
  readonly wasmBindgenVersion: string;
}

/** Must equal the `wasm-bindgen` version in each crate's Cargo.toml. */
export const wasmBindgenVersion = "0.2.130";
const target = "wasm32-unknown-unknown";

/** First line that a command prints, or null when it can't be run. */
function firstLine(command: string, ...args: string[]): string | null {
  try {
    const { success, stdout } = new Deno.Command(command, { args, stderr: "null" }).outputSync();
    return success ? new TextDecoder().decode(stdout).split("\n")[0]!.trim() : null;
  } catch {
    return null;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

type Compiler = Omit<Toolchain, "wasmBindgen" | "wasmBindgenVersion" | "cargoHome">;

/**
 * The standard library is compiled as well: the one that comes compiled can't share its memory
 * between threads.
 */
const buildStd = {
  cargoArgs: ["-Z", "build-std=std,panic_abort"],
  // -Z build-std is for nightly compilers only; this lifts the check.
  env: { RUSTC_BOOTSTRAP: "1" },
};

/** A rustc that has the standard library's sources, as rustup gives them. */
function findPlainCompiler(): Compiler | null {
  const sysroot = firstLine("rustc", "--print", "sysroot");
  if (sysroot === null || firstLine("cargo", "--version") === null) return null;
  const rustSource = `${sysroot}/lib/rustlib/src/rust`;
  if (!exists(`${rustSource}/library/std/Cargo.toml`)) return null;
  return {
    ...buildStd,
    cargo: "cargo",
    sysroot,
    rustSource,
    rustcVersion: firstLine("rustc", "--version")!,
    linkerVersion: "rust-lld",
  };
}

/** Debian's packages rustc-web, cargo-web, rust-web-src and lld-14. */
function findDebianCompiler(): Compiler | null {
  const [rustc, cargo, source] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust"];
  const linker = "wasm-ld-14";
  const rustcVersion = firstLine(rustc, "--version");
  const linkerVersion = firstLine(linker, "--version");
  if (rustcVersion === null || linkerVersion === null) return null;
  if (!exists(cargo) || !exists(`${source}/library/std/Cargo.toml`)) return null;
  return {
    ...buildStd,
    cargo,
    env: {
      ...buildStd.env,
      RUSTC: rustc,
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: linker,
    },
    sysroot: firstLine(rustc, "--print", "sysroot")!,
    rustSource: Deno.realPathSync(source),
    rustcVersion,
    linkerVersion,
  };
}

/** The first toolchain found, or a text that says what to install. */
export function findToolchain(): Toolchain | string {
  const compiler = findPlainCompiler() ?? findDebianCompiler();
  const cargoHome = Deno.env.get("CARGO_HOME") ?? `${Deno.env.get("HOME") ?? ""}/.cargo`;
  const wanted = `wasm-bindgen ${wasmBindgenVersion}`;
  const candidates = ["wasm-bindgen", `${cargoHome}/bin/wasm-bindgen`];
  const wasmBindgen = candidates.find((path) => firstLine(path, "--version") === wanted);
  const missing: string[] = [];
  if (compiler === null) {
    missing.push(
      `find a Rust compiler for ${target}: found none, install one of`,
      "  rustup component add rust-src",
      "  apt-get install rustc-web cargo-web rust-web-src lld-14",
    );
  }
  if (wasmBindgen === undefined) {
    const found = firstLine("wasm-bindgen", "--version") ?? "none";
    missing.push(
      `find wasm-bindgen: wanted ${wasmBindgenVersion}, found ${
        found.replace("wasm-bindgen ", "")
      }`,
      `  cargo install wasm-bindgen-cli --version =${wasmBindgenVersion} --locked`,
    );
  }
  if (compiler === null || wasmBindgen === undefined) return missing.join("\n");
  return { ...compiler, cargoHome, wasmBindgen, wasmBindgenVersion };
}
