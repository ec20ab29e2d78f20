/**
 * Whether llama.cpp computes the same model from the GGUF as Kedge from the checkpoint:
 *
 *     ./kedge deno run -A tests/bench/peer/check.ts [--model FOLDER] [--device cpu] [--quant F16]
 *
 * Prints, over all places of some texts, the share where the likeliest next token is the same and
 * how far the log-probability of the text's own next token is off; and whether token ids agree.
 */
import { parseArgs } from "node:util";
import type { Engine } from "../../../runtime/engine/engine.ts";
import { GREEDY_SAMPLING } from "../../../runtime/engine/sampling.ts";
import { startEngine } from "../../../runtime/engine/start.ts";
import { openModelFolder } from "../../../runtime/weights/model_folder.ts";
import { loadTextModule, Tokenizer } from "../../../wasm/text.ts";
import { convertCheckpoint } from "./convert.ts";
import { Llama, llamaBuild } from "./llama.ts";
import { QUANTISATIONS } from "./layout.ts";
import { oneOf } from "./options.ts";
import { withEqualHeads } from "./pad_heads.ts";

const TEXTS = [
  "Once upon a time there was a little fox who lived near the river with her mother.",
  "The rain had stopped, and the children ran out to see what was left of the garden.",
  "Tell me a story about 12 ships, 345 sailors and one very old map. It's late!",
];
const CONTEXT_TOKENS = 256;

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "models/kedge-tiny" },
    device: { type: "string", default: "cpu" },
    quant: { type: "string", default: "F16" },
  },
});
const device = oneOf("--device", values.device, ["cpu", "webgpu"] as const);
const quantisation = oneOf("--quant", values.quant, QUANTISATIONS);
const scratch = Deno.makeTempDirSync({ prefix: "kedge-peer-" });
try {
  const model = await withEqualHeads(values.model, `${scratch}/model`);
  const path = `${scratch}/model.gguf`;
  await convertCheckpoint(model, path, quantisation);
  const { tokenizer: { tiktokenModel, specials }, config: { shape } } = await openModelFolder(
    model,
  );
  loadTextModule();
  const tokenizer = new Tokenizer(tiktokenModel, specials, shape.vocabularySize);
  const llama = await Llama.open(path, {
    build: llamaBuild(device),
    threads: 1,
    sequences: 1,
    flashAttention: true,
    contextTokens: CONTEXT_TOKENS,
  });
  // The checkpoint itself, not the one with heads of zeros.
  const engine = await startEngine({
    modelDirectory: values.model,
    device,
    slots: 1,
    contextTokens: CONTEXT_TOKENS,
  });
  console.log(`${llama.description} against Kedge ${device}`);
  let places = 0;
  let agreeing = 0;
  const offsets: number[] = [];
  for (const text of TEXTS) {
    const ids = [...tokenizer.encode(text)];
    const sameIds = ids.join() === llama.tokenize(text).join();
    console.log(`${ids.length} tokens, ids ${sameIds ? "agree" : "differ"}: ${text}`);
    const rows = await llama.logits(ids, shape.vocabularySize);
    const kedge = await promptLogprobs(engine, ids);
    kedge.forEach(({ id, logprob, best }, place) => {
      const row = rows[place]!;
      places++;
      if (row.indexOf(row.reduce((a, b) => Math.max(a, b))) === best) agreeing++;
      offsets.push(Math.abs(row[id]! - logSumExp(row) - logprob));
    });
  }
  const mean = offsets.reduce((sum, offset) => sum + offset, 0) / places;
  console.log(`likeliest token the same at ${agreeing} of ${places} places`);
  console.log(
    `log-probability off by ${mean.toFixed(4)}, at most ${Math.max(...offsets).toFixed(4)}`,
  );
  await engine.close();
  await llama.close();
} finally {
  Deno.removeSync(scratch, { recursive: true });
}

/** Of ids 1.., and the likeliest at their places. */
async function promptLogprobs(engine: Engine, ids: readonly number[]) {
  const request = {
    promptIds: Uint32Array.from(ids),
    maxTokens: 1,
    sampling: GREEDY_SAMPLING,
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: 1,
    promptLogprobs: true,
    progress: false,
    owner: "",
  };
  for await (const event of engine.generate(request)) {
    if (event.type !== "prompt") continue;
    return event.logprobs.map(({ id, logprob, top }) => ({ id, logprob, best: top[0]!.id }));
  }
  throw new Error("score a text: wanted log-probabilities of the prompt, found none");
}

function logSumExp(row: Float32Array): number {
  const most = row.reduce((a, b) => Math.max(a, b));
  return most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
}
