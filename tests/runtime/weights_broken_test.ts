import assert from "node:assert/strict";
import { ModelError } from "../../runtime/errors.ts";
import { loadWeights, openModelFolder } from "../../runtime/weights/model_folder.ts";
import { BROKEN_MODELS, writeBrokenModel } from "../tools/broken_models.ts";
import { RecordingDevice } from "../tools/recording_device.ts";

/** Longest that a refusal may take; the command as a whole has 2 s. */
const MOST_MS = 1000;

Deno.test("broken model folders: at least 60, each with its own name", () => {
  assert.ok(BROKEN_MODELS.length >= 60);
  assert.equal(new Set(BROKEN_MODELS.map(({ name }) => name)).size, BROKEN_MODELS.length);
});

Deno.test("each broken model folder is refused in one line that says what is wrong", async (t) => {
  const root = Deno.makeTempDirSync({ prefix: "kedge-broken-" });
  try {
    for (const [number, model] of BROKEN_MODELS.entries()) {
      await t.step(model.name, async () => {
        const directory = `${root}/${number}`;
        writeBrokenModel(model, directory);
        const device = new RecordingDevice();
        const started = performance.now();
        let opened = false;
        const error = await (async () => {
          const folder = await openModelFolder(directory);
          opened = true;
          await loadWeights(folder, device);
        })().then(() => null, (error) => error);
        const elapsed = performance.now() - started;

        assert.ok(error instanceof ModelError, `refused with ${error}`);
        assert.match(error.message, model.expected);
        assert.match(error.message, /^[^\n\r]+: wanted .+, found [^\n\r]+$/);
        assert.ok(!error.message.endsWith("."), "ends with a full stop");
        assert.ok(error.message.length < 700, `${error.message.length} characters`);
        assert.equal(error.exitCode, 3);
        assert.equal(opened ? "load" : "open", model.stage);
        if (!opened) assert.equal(device.specs.length, 0);
        assert.ok(elapsed < MOST_MS, `took ${elapsed} ms`);
      });
    }
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
});
