import assert from "node:assert/strict";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { type Draft, draftModel, encodeDraft, writeFiles } from "../tools/checkpoint_writer.ts";

async function open(change: (draft: Draft) => void, config: Record<string, unknown> = {}) {
  const directory = Deno.makeTempDirSync({ prefix: "kedge-tokenizer-" });
  try {
    const draft = draftModel({ config });
    change(draft);
    writeFiles(directory, encodeDraft(draft));
    return await openModelFolder(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("markers that the file doesn't name come from Kimi's table", async () => {
  const { tokenizer } = await open(() => {});
  const byId = new Map(tokenizer.specials.map((token) => [token.id, token]));
  // Named by the file.
  assert.deepEqual(byId.get(258), { id: 258, text: "<|im_end|>", special: true });
  // From the table; the tool markers are not to be skipped.
  assert.deepEqual(byId.get(266), { id: 266, text: "<|im_system|>", special: true });
  assert.deepEqual(byId.get(273), { id: 273, text: "<|im_middle|>", special: true });
  assert.deepEqual(
    [267, 268, 269, 270, 271].map((id) => byId.get(id)?.special),
    [false, false, false, false, false],
  );
  // [UNK] and [PAD] would lie beyond this vocabulary.
  assert.ok([...byId.keys()].every((id) => id >= 256 && id < 280));
  const ids = tokenizer.specials.map(({ id }) => id);
  assert.deepEqual(ids, ids.toSorted((a, b) => a - b));
});

Deno.test("the file's own names win over the table", async () => {
  const { tokenizer } = await open(({ tokenizerConfig }) => {
    tokenizerConfig.added_tokens_decoder["266"] = { content: "<|mine|>", special: false };
    tokenizerConfig.added_tokens_decoder["275"] = { content: "<|im_system|>", special: true };
  });
  const texts = new Map(tokenizer.specials.map(({ id, text }) => [id, text]));
  assert.equal(texts.get(266), "<|mine|>");
  assert.equal(texts.get(275), "<|im_system|>");
});

Deno.test("without added_tokens_decoder the whole table is used", async () => {
  const { tokenizer } = await open((draft) => draft.tokenizerConfig = {}, { vocab_size: 512 });
  assert.equal(tokenizer.specials.length, 17);
  assert.deepEqual(tokenizer.specials.at(-1), { id: 511, text: "[PAD]", special: true });
});

Deno.test("ranks may come in any order", async () => {
  const { tokenizer } = await open((draft) => {
    draft.tiktoken = `${draft.tiktoken.trimEnd().split("\n").reverse().join("\n")}\n`;
  });
  assert.equal(tokenizer.rankCount, 256);
});

Deno.test("generation defaults", async () => {
  const read = async (json: Record<string, unknown>) =>
    (await open((draft) => draft.generationConfig = json)).generation;
  const eosIds = [257, 258];
  const none = { temperature: 0.6, topK: 0, topP: 1, minP: 0, eosIds };
  assert.deepEqual(await read({}), none);
  assert.deepEqual(await read({ eos_token_id: 260, temperature: null }), {
    ...none,
    eosIds: [257, 258, 260],
  });
  assert.deepEqual(await read({ do_sample: false, temperature: 1 }), { ...none, temperature: 0 });
  assert.deepEqual(
    await read({ temperature: 0.3, top_k: 40, top_p: 0.8, min_p: 0.05, eos_token_id: [258] }),
    { temperature: 0.3, topK: 40, topP: 0.8, minP: 0.05, eosIds },
  );
});
