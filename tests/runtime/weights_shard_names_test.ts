import assert from "node:assert/strict";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import {
  draftModel,
  encodeDraft,
  encodeSafetensors,
  writeFiles,
} from "../tools/checkpoint_writer.ts";

const INDEX = "model.safetensors.index.json";

/** Names that would leave the folder, hide, or be read differently elsewhere. */
const HOSTILE = [
  "../model.safetensors",
  "../../etc/passwd",
  "..\\model.safetensors",
  "./model.safetensors",
  "/etc/passwd",
  "/model.safetensors",
  "//host/share/model.safetensors",
  "\\\\host\\share\\model.safetensors",
  "C:\\model.safetensors",
  "C:model.safetensors",
  "sub/model.safetensors",
  "sub\\model.safetensors",
  "model.safetensors/",
  "model.safetensors/..",
  "..",
  ".",
  "",
  " ",
  ".safetensors",
  "..safetensors",
  ".hidden.safetensors",
  "-model.safetensors",
  "~/model.safetensors",
  "~root.safetensors",
  "$HOME.safetensors",
  "`id`.safetensors",
  "model;rm.safetensors",
  "model|x.safetensors",
  "model*.safetensors",
  "model?.safetensors",
  "model .safetensors",
  "model\n.safetensors",
  "model.safetensors\n",
  "model\u0000.safetensors",
  "model.safetensors\u0000.bin",
  "model\u202e.safetensors",
  "modèle.safetensors",
  "%2e%2e%2fmodel.safetensors",
  "file:///etc/passwd",
  "https://host/model.safetensors",
  "model.bin",
  "model.SAFETENSORS",
  "model.safetensors.bin",
  `${"m".repeat(200)}.safetensors`,
];

async function openWithShardName(name: unknown): Promise<unknown> {
  const directory = Deno.makeTempDirSync({ prefix: "kedge-shards-" });
  try {
    const draft = draftModel();
    const files = encodeDraft(draft);
    files.delete("model.safetensors");
    const weightMap = Object.fromEntries(draft.tensors.map((tensor) => [tensor.name, name]));
    files.set(INDEX, new TextEncoder().encode(JSON.stringify({ weight_map: weightMap })));
    if (typeof name === "string" && !HOSTILE.includes(name)) {
      files.set(name, encodeSafetensors(draft.tensors));
    }
    writeFiles(directory, files);
    return await openModelFolder(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test(`${HOSTILE.length} hostile shard names are refused`, async () => {
  assert.ok(HOSTILE.length >= 40);
  for (const name of HOSTILE) {
    await assert.rejects(
      openWithShardName(name),
      /^ModelError: read tensor ".*" in ".*index\.json": wanted a plain file name .*, found ".*"$/,
      JSON.stringify(name),
    );
  }
  for (const name of [null, 1, {}, ["model.safetensors"]]) {
    await assert.rejects(openWithShardName(name), /wanted a plain file name/);
  }
});

Deno.test("shard names as others write them are fine", async () => {
  const names = ["model.safetensors", "model-00001-of-00001.safetensors", "weights_0.safetensors"];
  for (const name of names) await openWithShardName(name);
});
