/** The file of --tuning: what it may hold, and what is said about others. */
import assert from "node:assert";
import { TUNINGS } from "../../kernels/gpu/tuning.ts";
import { readTuningFile } from "../../runtime/cli/tuning_file.ts";
import { UsageError } from "../../runtime/errors.ts";
import { MAX_TUNING_FILE_BYTES } from "../../runtime/limits.ts";
import { kedge } from "../tools/kedge.ts";

function withFile<Result>(text: string, action: (path: string) => Result): Result {
  const path = Deno.makeTempFileSync({ suffix: ".json" });
  try {
    Deno.writeTextFileSync(path, text);
    return action(path);
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("a tuning file holds any numbers of the table, and a class", () => {
  const whole = { class: "integrated", ...TUNINGS.discrete };
  const read = withFile(JSON.stringify(whole), readTuningFile);
  assert.deepEqual(read, { adapterClass: "integrated", changes: TUNINGS.discrete });
  assert.deepEqual(withFile('{"up": {"chunk": 8}, "down": {}}', readTuningFile), {
    adapterClass: undefined,
    changes: { up: { chunk: 8 }, down: {} },
  });
});

Deno.test("the tuning file of docs/performance.md can be read", () => {
  const text = Deno.readTextFileSync(new URL("../../docs/performance.md", import.meta.url));
  const example = /```json\n(\{ "class"[^`]*)```/.exec(text)?.[1];
  assert.ok(example !== undefined);
  const { adapterClass, changes } = withFile(example, readTuningFile);
  assert.ok(adapterClass !== undefined && Object.keys(changes).length > 0);
});

const WRONG: readonly [text: string, message: string][] = [
  ["up: 3", "wanted JSON, found other text"],
  ["[]", "wanted an object, found []"],
  [
    '{"upp": {}}',
    "wanted one of class, projection, out, up, experts, down, attention, batch, prompt, " +
    'found "upp"',
  ],
  ['{"up": {"lane": 8}}', 'wanted one of lanes, tile, chunk, found "up.lane"'],
  ['{"up": 8}', 'wanted an object of numbers by name at "up", found 8'],
  ['{"up": {"lanes": "8"}}', 'wanted a whole number from 1 to 65535 at "up.lanes", found "8"'],
  ['{"up": {"lanes": 8.5}}', 'wanted a whole number from 1 to 65535 at "up.lanes", found 8.5'],
  ['{"out": {"lanes": 0}}', 'wanted a whole number from 1 to 65535 at "out.lanes", found 0'],
  [
    '{"class": "huge"}',
    'wanted one of software, integrated, discrete at "class", found "huge"',
  ],
  [
    '{"prompt": {"tiles": [{"xRegisters": 4, "wRegisters": 1, "xThreads": 1}]}}',
    'wanted a whole number from 1 to 65535 at "prompt.tiles.0.wThreads", found nothing',
  ],
];

Deno.test("a tuning file with other names or values is refused by its place", () => {
  for (const [text, message] of WRONG) {
    withFile(text, (path) => {
      const wanted = new UsageError(`read tuning file "${path}": ${message}`);
      assert.throws(() => readTuningFile(path), wanted, text);
    });
  }
  withFile(" ".repeat(MAX_TUNING_FILE_BYTES + 1), (path) => {
    assert.throws(() => readTuningFile(path), /wanted at most 65536 bytes, found 65537/);
  });
  assert.throws(() => readTuningFile("/nowhere/x.json"), /read tuning file .*: wanted a text file/);
});

Deno.test("kedge refuses a tuning file before it loads, and one for the cpu device", async () => {
  const missing = await kedge(["run", "x", "--tuning", "/nowhere/x.json"]);
  assert.equal(missing.code, 2, missing.err);
  assert.match(missing.err, /^kedge: read tuning file "\/nowhere\/x.json": wanted a text file/);
  const path = Deno.makeTempFileSync({ suffix: ".json" });
  try {
    Deno.writeTextFileSync(path, "{}");
    const { code, err } = await kedge(["run", "x", "--device", "cpu"], { KEDGE_TUNING: path });
    assert.notEqual(code, 0);
    assert.match(err, /kedge: use --tuning: wanted the device "webgpu", found "cpu"/);
  } finally {
    Deno.removeSync(path);
  }
});
