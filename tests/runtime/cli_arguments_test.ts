/** What the command line makes of its arguments. */
import assert from "node:assert";
import { kedge } from "../tools/kedge.ts";

const WRONG: readonly [args: string[], message: RegExp][] = [
  [["nope"], /unknown command 'nope'/],
  [["--nope"], /unknown option '--nope'/],
  [["serve", "--modle", "x"], /unknown option '--modle' \(Did you mean --model\?\)/],
  [["serve", "extra"], /too many arguments/],
  [["serve", "--port"], /argument missing/],
  [["serve", "--port", "65536"], /'65536' is invalid: wanted a whole number from 0 to 65535/],
  [["serve", "--port", "-1"], /'-1' is invalid: wanted a whole number/],
  [["serve", "--port", "1e3"], /'1e3' is invalid: wanted a whole number/],
  [["serve", "--device", "tpu"], /'tpu' is invalid: Allowed choices are auto, webgpu, cpu/],
  [["serve", "--weights", "q5"], /'q5' is invalid: Allowed choices are q4, q8, fp8, bf16/],
  [["serve", "--model", ""], /is invalid: wanted at least one character/],
  [["serve", "--slots", "0"], /'0' is invalid: wanted a whole number from 1/],
  [["serve", "--context", "many"], /'many' is invalid: wanted a whole number from 1/],
  [["serve", "--log-level", "loud"], /Allowed choices are debug, info, warning, error/],
  [["serve", "--drain-seconds", "-1"], /'-1' is invalid: wanted a whole number from 0/],
  [["serve", "--allow-origin", "*"], /'\*' is invalid: wanted an origin like https:\/\//],
  [["serve", "--keys", ""], /is invalid: wanted at least one character/],
  [["run"], /missing required argument 'prompt'/],
  [["run", "x", "--temperature", "2.1"], /'2.1' is invalid: wanted a number from 0 to 2/],
  [["run", "x", "--seed", "0x10"], /'0x10' is invalid: wanted a whole number/],
  [["bench", "--contexts", "4k,many"], /'4k,many' is invalid: wanted whole numbers from 0/],
  [["bench", "--batches", "0"], /'0' is invalid: wanted whole numbers from 1/],
  [["bench", "--slots", "2"], /unknown option '--slots'/],
];

Deno.test("kedge refuses wrong arguments in one line with status 2", async () => {
  for (const [args, message] of WRONG) {
    const { code, out, err } = await kedge(args);
    const what = `kedge ${args.join(" ")}: ${err}`;
    assert.equal(code, 2, what);
    assert.equal(out, "", what);
    assert.match(err, /^kedge: .*; see kedge --help\n$/, what);
    assert.match(err, message, what);
  }
});

Deno.test("kedge refuses a wrong value of the environment by its name", async () => {
  const { code, err } = await kedge(["serve"], { KEDGE_PORT: "http" });
  assert.equal(code, 2);
  assert.match(err, /^kedge: .*'http' from env 'KEDGE_PORT' is invalid: wanted a whole number/);
});

Deno.test("kedge without a command prints its help with status 2", async () => {
  const { code, out, err } = await kedge([]);
  assert.deepEqual([code, out], [2, ""]);
  assert.match(err, /^Usage: kedge /);
});

Deno.test("kedge --help names every command, and each describes its options", async () => {
  const { code, out, err } = await kedge(["--help"]);
  assert.deepEqual([code, err], [0, ""]);
  const options: Record<string, string[]> = {
    serve: ["--model", "--device", "--host", "--port", "--slots", "--context"]
      .concat("--keys", "--insecure", "--allow-origin", "--drain-seconds", "--log-level"),
    keys: ["add", "list", "revoke"],
    run: ["--model", "--device", "--max-tokens", "--temperature", "--seed", "--raw"],
    bench: ["--model", "--device", "--full", "--json"],
    synth: ["<folder>", "--shape", "--format", "--skew", "--seed"],
    test: ["[filter]"],
  };
  for (const [command, names] of Object.entries(options)) {
    assert.match(out, new RegExp(`^  ${command} `, "m"));
    const help = await kedge([command, "--help"]);
    assert.deepEqual([help.code, help.err], [0, ""]);
    for (const name of names) assert.ok(help.out.includes(` ${name}`), `${command} ${name}`);
    const columns = Math.max(...help.out.split("\n").map((line) => line.length));
    assert.ok(columns <= 100, `kedge ${command} --help: ${columns} columns`);
  }
});

Deno.test("kedge --version prints the version", async () => {
  const { code, out, err } = await kedge(["--version"]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /^\d+\.\d+\.\d+\n$/);
});
