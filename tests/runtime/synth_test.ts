/** Model folders that `kedge synth` writes: they open, load, run and keep texts. */
import assert from "node:assert/strict";
import { observeStep } from "../../runtime/model/kimi_linear.ts";
import type { WeightFormat } from "../../runtime/model/device.ts";
import { loadWeights, openModelFolder } from "../../runtime/weights/model_folder.ts";
import { WEIGHT_CHOICES, type WeightChoice } from "../../runtime/weights/resident.ts";
import { writeSyntheticFolder } from "../../runtime/weights/synthetic_folder.ts";
import { CpuDevice } from "../../wasm/cpu.ts";
import { loadTextModule, Tokenizer } from "../../wasm/text.ts";
import { GROUPED_SIZES, smallConfig } from "../tools/checkpoint_writer.ts";
import { plainRows } from "../tools/logit_rows.ts";
import { RecordingDevice } from "../tools/recording_device.ts";

const VOCABULARY = 2_000;
const SIZES = { vocab_size: VOCABULARY, bos_token_id: 1744, eos_token_id: 1746 };

async function withFolder(
  change: Record<string, unknown>,
  choice: WeightChoice,
  use: (directory: string) => Promise<void>,
): Promise<void> {
  const root = Deno.makeTempDirSync({ prefix: "kedge-synth-" });
  try {
    const config = { ...smallConfig(), ...SIZES, pad_token_id: VOCABULARY - 1, ...change };
    const steps: number[] = [];
    const bytes = writeSyntheticFolder(
      config,
      `${root}/small`,
      choice,
      { seed: 4, skew: 0.5 },
      (done, total) => steps.push(done / total),
    );
    assert.ok(bytes > 0 && steps.at(-1) === 1);
    await use(`${root}/small`);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

const FORMATS: Record<WeightChoice, [matrix: WeightFormat, head: WeightFormat]> = {
  q4: ["q4", "q8"],
  q8: ["q8", "q8"],
  fp8: ["fp8", "bf16"],
  bf16: ["bf16", "bf16"],
};

for (const choice of WEIGHT_CHOICES) {
  Deno.test(`a folder in ${choice} opens and loads, whole groups or not`, async () => {
    for (const change of [GROUPED_SIZES, {}]) {
      await withFolder(change, choice, async (directory) => {
        const folder = await openModelFolder(directory);
        const device = new RecordingDevice();
        await loadWeights(folder, device);
        device.checkComplete();
        const format = (key: string) => device.weights.get(key)!.spec.format;
        const grouped = change === GROUPED_SIZES || choice === "fp8";
        const [matrix, head] = grouped ? FORMATS[choice] : FORMATS.bf16;
        assert.deepEqual([format("1.moe.gate"), format("head")], [matrix, head]);
        assert.equal(format("0.kda.b"), "bf16");
      });
    }
  });
}

Deno.test("a folder runs on the cpu device, and its tokenizer keeps texts", async () => {
  await withFolder(GROUPED_SIZES, "bf16", async (directory) => {
    const folder = await openModelFolder(directory);
    const { shape } = folder.config;
    const device = new CpuDevice(shape);
    await loadWeights(folder, device);
    await device.configure({
      ...{ slots: 1, pages: 1, pageTokens: 64, rows: 4, logitRows: 1, sequences: 1 },
      ...{ pagesPerSequence: 1, logitEdits: 1, latentFormat: "f16" },
    });
    const result = await observeStep(device, shape, {
      tokens: Uint32Array.of(1, 500, 1_000, 1_999),
      feeds: null,
      sequences: [{ slot: 0, rowStart: 0, rowCount: 4, past: 0, pages: Uint32Array.of(0) }],
      logits: plainRows([3]),
    }, () => Promise.resolve());
    assert.deepEqual([...result.nonFinite], [0]);
    device.destroy();
    loadTextModule();
    const { tiktokenModel, specials } = folder.tokenizer;
    const tokenizer = new Tokenizer(tiktokenModel, specials, VOCABULARY);
    const text = "Of words and übersetzungen, 12 in all: abcdefghij.";
    const ids = tokenizer.encode(text);
    assert.ok(ids.length < new TextEncoder().encode(text).length);
    assert.equal(
      new TextDecoder().decode(Uint8Array.from(
        [...ids].flatMap((id) => [...tokenizer.tokenBytes(id)]),
      )),
      text,
    );
  });
});
