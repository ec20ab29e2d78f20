/** Broken model folders as a user meets them: one line, an exit status, and not much waiting. */
import assert from "node:assert";
import { BROKEN_MODELS, type BrokenModel, writeBrokenModel } from "../tools/broken_models.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
/** Every case is tested at the loader; here a spread of them. */
const CASES = 60;
const EXIT_MODEL = 3;
/** The promise is 2 s on a machine of its own; the tests share theirs. */
const LONGEST_MS = 2_000;
/** Two processes at once, as there are cores. */
const AT_ONCE = 2;

async function serveBroken(model: BrokenModel): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "kedge-broken-" });
  try {
    writeBrokenModel(model, directory);
    const began = performance.now();
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "serve", "--port", "0", "--device", "cpu", "--model", directory],
      stdout: "piped",
      stderr: "piped",
    }).output();
    const elapsed = performance.now() - began;
    const lines = new TextDecoder().decode(stderr).trim().split("\n");
    // The log's lines are JSON.
    const faults = lines.filter((line) => !line.startsWith("{"));
    assert.strictEqual(faults.length, 1, `${model.name}: ${faults.join(" / ")}`);
    assert.match(faults[0]!.replace(/^kedge: /, ""), model.expected, model.name);
    assert.strictEqual(code, EXIT_MODEL, model.name);
    assert.strictEqual(new TextDecoder().decode(stdout), "", model.name);
    assert.ok(elapsed <= LONGEST_MS, `${model.name}: ${elapsed.toFixed(0)} ms`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("serve refuses 60 broken model folders with one line each", async () => {
  const step = BROKEN_MODELS.length / CASES;
  const waiting = Array.from({ length: CASES }, (_, at) => BROKEN_MODELS[Math.floor(at * step)]!);
  const worker = async () => {
    for (let model = waiting.shift(); model !== undefined; model = waiting.shift()) {
      await serveBroken(model);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
});
