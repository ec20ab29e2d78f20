/** The launcher, in copies of it beside stub programs: nothing is downloaded or installed. */
import assert from "node:assert";

const LAUNCHER = new URL("../kedge", import.meta.url);
const VERSION = /^deno_version=(.+)$/m.exec(Deno.readTextFileSync(LAUNCHER))![1]!;
/** What the launcher itself calls; everything else a test must provide. */
const TOOLS = ["sh", "readlink", "dirname", "uname", "sed", "mkdir", "mktemp", "rm", "mv", "chmod"]
  .concat(["tail", "id", "cat", "flock"]);

/** A project folder whose path has spaces, and a folder of programs that is all of PATH. */
class Sandbox implements Disposable {
  readonly root = Deno.makeTempDirSync({ prefix: "kedge launcher " });
  readonly project = `${this.root}/the project`;
  readonly bin = `${this.root}/bin`;

  constructor() {
    Deno.mkdirSync(this.project);
    Deno.mkdirSync(this.bin);
    Deno.copyFileSync(LAUNCHER, `${this.project}/kedge`);
    for (const tool of TOOLS) {
      const path = ["/bin", "/usr/bin"].map((folder) => `${folder}/${tool}`).find(exists);
      if (path !== undefined) Deno.symlinkSync(path, `${this.bin}/${tool}`);
    }
  }

  /** A program that runs `script` in sh. */
  stub(path: string, script: string): void {
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  /** A Deno that tells its version, or else its path and arguments. */
  stubDeno(path: string, version = VERSION): void {
    this.stub(
      path,
      `if [ "$1" = --version ]; then echo "deno ${version} (stable)"; exit; fi
echo "deno at $0"; for argument in "$@"; do echo "[$argument]"; done`,
    );
  }

  /** An npm that puts a stub of Deno where the package's executable would be, unless it fails. */
  stubNpm(exitCode = 0): void {
    this.stubDeno(`${this.root}/packaged`);
    this.stub(
      `${this.bin}/npm`,
      `echo "npm $*" >>"${this.root}/npm.log"
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/@deno/this-platform"
cat "${this.root}/packaged" >"$2/node_modules/@deno/this-platform/deno"
exit ${exitCode}`,
    );
  }

  run(args: string[], launcher = `${this.project}/kedge`) {
    const { code, stdout, stderr } = new Deno.Command(launcher, {
      args,
      cwd: this.root,
      clearEnv: true,
      env: { PATH: this.bin },
      stdin: "null",
    }).outputSync();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, out: text(stdout), err: text(stderr) };
  }

  /** Names in the project's .deno folder. */
  store(): string[] {
    return [...Deno.readDirSync(`${this.project}/.deno`)].map((entry) => entry.name).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
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

Deno.test("launcher is plain sh", () => {
  for (const shell of ["sh", "dash", "bash"].filter((name) => exists(`/bin/${name}`))) {
    const check = new Deno.Command(shell, { args: ["-n", LAUNCHER.pathname], stderr: "piped" });
    const { code, stderr } = check.outputSync();
    assert.equal(code, 0, `${shell}: ${new TextDecoder().decode(stderr)}`);
  }
});

Deno.test("launcher takes Deno from PATH and passes arguments as they are", () => {
  using sandbox = new Sandbox();
  sandbox.stubDeno(`${sandbox.bin}/deno`);
  const { code, out, err } = sandbox.run(["run", "two words", "", "--max-tokens", "1"]);
  assert.equal(code, 0, err);
  assert.equal(err, "");
  assert.ok(out.startsWith(`deno at ${sandbox.bin}/deno\n[run]\n`), out);
  const main = `[${sandbox.project}/main.ts]`;
  assert.ok(out.endsWith(`${main}\n[run]\n[two words]\n[]\n[--max-tokens]\n[1]\n`), out);
});

Deno.test("launcher gives each command its own permissions", () => {
  using sandbox = new Sandbox();
  sandbox.stubDeno(`${sandbox.bin}/deno`);
  const permissions = (...args: string[]) =>
    sandbox.run(args).out.match(/(?<=^\[--allow-)[a-z]+(=[^\]]*)?/gm);
  const environment = "env=KEDGE_*,NO_COLOR,FORCE_COLOR,CLICOLOR_FORCE";
  assert.deepEqual(permissions("serve"), ["read", "sys", environment, "net"]);
  assert.deepEqual(permissions("run", "x"), ["read", "sys", environment]);
  assert.deepEqual(permissions("bench"), ["read", "sys", environment]);
  assert.deepEqual(permissions("test"), ["read", "sys", "env", "net", "write", "run"]);
});

Deno.test("launcher finds its project through symbolic links", () => {
  using sandbox = new Sandbox();
  sandbox.stubDeno(`${sandbox.bin}/deno`);
  Deno.mkdirSync(`${sandbox.root}/links`);
  Deno.symlinkSync("../the project/kedge", `${sandbox.root}/links/relative`);
  Deno.symlinkSync(`${sandbox.root}/links/relative`, `${sandbox.root}/absolute`);
  const { out, err } = sandbox.run(["serve"], `${sandbox.root}/absolute`);
  assert.equal(err, "");
  assert.ok(out.includes(`[${sandbox.project}/main.ts]`), out);
});

Deno.test("launcher installs Deno once, where PATH has none or another version", () => {
  using sandbox = new Sandbox();
  sandbox.stubDeno(`${sandbox.bin}/deno`, "2.0.0");
  sandbox.stubNpm();
  const first = sandbox.run(["--version"]);
  assert.equal(first.code, 0, first.err);
  assert.match(first.err, new RegExp(`^kedge: installing Deno ${VERSION} .*\n$`));
  assert.match(first.out, /^deno at .*\/the project\/\.deno\/deno-/);
  assert.deepEqual(sandbox.store().filter((name) => name.startsWith("staging")), []);
  const second = sandbox.run(["--version"]);
  assert.equal(second.err, "");
  assert.equal(second.out, first.out);
  const calls = Deno.readTextFileSync(`${sandbox.root}/npm.log`).trim().split("\n");
  assert.equal(calls.length, 1);
  assert.match(calls[0]!, new RegExp(`--ignore-scripts .*deno@${VERSION}$`));
});

Deno.test("launcher leaves nothing behind when npm fails, and says so", () => {
  using sandbox = new Sandbox();
  sandbox.stubNpm(7);
  const { code, out, err } = sandbox.run(["--version"]);
  assert.equal(code, 1);
  assert.equal(out, "");
  assert.match(err, /^kedge: install Deno .* failed$/m);
  assert.deepEqual(sandbox.store().filter((name) => name !== "lock"), []);
});

Deno.test("launcher refuses a package whose Deno does not run", () => {
  using sandbox = new Sandbox();
  sandbox.stubNpm();
  sandbox.stubDeno(`${sandbox.root}/packaged`, "1.0.0");
  const { code, err } = sandbox.run(["--version"]);
  assert.equal(code, 1);
  assert.match(err, /wanted an executable for .*, found none that runs here/);
});

Deno.test("launcher without npm prints the command for a user who is not root", () => {
  using sandbox = new Sandbox();
  Deno.removeSync(`${sandbox.bin}/id`);
  sandbox.stub(`${sandbox.bin}/id`, "echo 1000");
  sandbox.stub(`${sandbox.bin}/apt-get`, `echo called >"${sandbox.root}/apt.log"`);
  const { code, err } = sandbox.run(["serve"]);
  assert.equal(code, 1);
  const command = "apt-get update && apt-get install -y --no-install-recommends npm";
  assert.ok(err.includes(`run: sudo sh -c '${command}'`), err);
  assert.equal(err.trim().split("\n").length, 1);
  assert.ok(!exists(`${sandbox.root}/apt.log`));
});

Deno.test("launcher without npm installs it for root", () => {
  using sandbox = new Sandbox();
  sandbox.stubNpm();
  Deno.renameSync(`${sandbox.bin}/npm`, `${sandbox.root}/npm`);
  Deno.removeSync(`${sandbox.bin}/id`);
  sandbox.stub(`${sandbox.bin}/id`, "echo 0");
  sandbox.stub(
    `${sandbox.bin}/apt-get`,
    `if [ "$1" = install ]; then mv "${sandbox.root}/npm" "${sandbox.bin}/npm"; fi`,
  );
  const { code, err } = sandbox.run(["--version"]);
  assert.equal(code, 0, err);
  assert.match(err, /^kedge: installing npm .*\nkedge: installing Deno .*\n$/);
});

Deno.test("launcher without npm and without apt says what to install", () => {
  using sandbox = new Sandbox();
  const { code, err } = sandbox.run(["serve"]);
  assert.equal(code, 1);
  assert.match(err, /^kedge: install Deno .*: wanted npm on PATH, found none; .*\n$/);
});

Deno.test("two launchers at once install one Deno", async () => {
  using sandbox = new Sandbox();
  sandbox.stubNpm();
  const start = () =>
    new Deno.Command(`${sandbox.project}/kedge`, {
      args: ["--version"],
      clearEnv: true,
      env: { PATH: sandbox.bin },
    }).output();
  const results = await Promise.all([start(), start(), start()]);
  assert.deepEqual(results.map((result) => result.code), [0, 0, 0]);
  assert.deepEqual(sandbox.store().filter((name) => name.startsWith("staging")), []);
});
