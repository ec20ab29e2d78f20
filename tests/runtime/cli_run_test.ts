/** `kedge run`: the completion on standard output, everything else on standard error. */
import assert from "node:assert";
import { kedge, kedgeCommand } from "../tools/kedge.ts";

const CPU = ["--device", "cpu"];

Deno.test("run prints the completion alone, the same for the same seed", async () => {
  const args = ["run", "Tell me a story about a fox.", ...CPU, "-n", "24", "-t", "1"];
  const first = await kedge([...args, "--seed", "7"]);
  const again = await kedge([...args, "--seed", "7"]);
  const other = await kedge([...args, "--seed", "8"]);
  assert.equal(first.code, 0, first.err);
  assert.match(first.err, /^device: .*\nweights: as in the file, .*\nload kedge-tiny: .*\n$/);
  assert.ok(first.out.trim().length > 0 && !first.out.includes("<|"), first.out);
  assert.equal(again.out, first.out);
  assert.notEqual(other.out, first.out);
});

Deno.test("run --raw continues the prompt without the chat layout", async () => {
  const args = ["run", "Once upon a time", ...CPU, "-n", "12", "-t", "0"];
  const [chat, raw] = [await kedge(args), await kedge([...args, "--raw"])];
  assert.equal(raw.code, 0, raw.err);
  assert.notEqual(raw.out, chat.out);
});

Deno.test("run ends quietly when its reader has seen enough", async () => {
  const child = kedgeCommand(["run", "Tell me a story.", ...CPU, "-n", "400", "-t", "0"]).spawn();
  const reader = child.stdout.getReader();
  const first = await reader.read();
  assert.ok((first.value?.length ?? 0) > 0);
  await reader.cancel();
  const errors = await new Response(child.stderr).text();
  assert.equal((await child.status).code, 0, errors);
  assert.doesNotMatch(errors, /error|at /i);
});

Deno.test("run refuses a prompt that is longer than the context, in one line", async () => {
  const { code, out, err } = await kedge(["run", "word ".repeat(9_000), ...CPU]);
  assert.equal(code, 1);
  assert.equal(out, "");
  assert.match(err, /^kedge: read field "prompt": wanted .* 8192 tokens, found \d+ tokens$/m);
});
