/**
 * What choosing tokens costs on the webgpu device: the pass over rows of logits, and decoding with
 * and without the next step begun before the token is known. Prints a table.
 *
 *   deno run -A tests/bench/sampling_bench.ts [model folder]
 */
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { openGpu } from "../../kernels/gpu/gpu.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { compileLogitMasks, maskLogits, maskWords } from "../../kernels/logit_masks.ts";
import {
  compileLogitParts,
  logitParts,
  logitSubsets,
  sumParts,
} from "../../kernels/logit_parts.ts";
import { compileLogitSums, sumLogits } from "../../kernels/logit_sums.ts";
import { BEST_TOKENS, compileTopTokens, ITEM_WORDS, topTokens } from "../../kernels/top_tokens.ts";
import { planCapacity } from "../../runtime/engine/capacity.ts";
import { openDevice } from "../../runtime/engine/devices.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import { GREEDY_SAMPLING } from "../../runtime/engine/sampling.ts";
import type { Device } from "../../runtime/model/device.ts";
import { loadWeights } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { loadTextModule, Sampler } from "../../wasm/text.ts";
import { normals, randomSource } from "../reference/random.ts";

const VOCABULARY = 163_840;
const PASSES = 20;
const TOKENS = 256;
const EMBEDDED = new URL("../../models/kedge-tiny", import.meta.url).pathname;

async function benchPass(): Promise<void> {
  const gpu = await openGpu({ software: true });
  console.log(`${gpu.description}: rows of ${VOCABULARY} logits`);
  const [mask, part, sum, top] = await Promise.all([
    compileLogitMasks(gpu),
    compileLogitParts(gpu),
    compileLogitSums(gpu),
    compileTopTokens(gpu),
  ]);
  const readback = await Readback.create(gpu, 64);
  for (const rows of [1, 8]) {
    const bytes = 4 * rows * BEST_TOKENS * ITEM_WORDS;
    const logits = gpu.buffer("logits", 4 * rows * VOCABULARY);
    gpu.write(logits, 0, normals(randomSource(1), rows * VOCABULARY, 2));
    const [wanted, sums] = [gpu.buffer("wanted", 8 * rows), gpu.buffer("sums", 16 * rows)];
    const shares = gpu.buffer("shares", 16 * rows * logitParts(VOCABULARY));
    const maxima = gpu.buffer("maxima", 4 * rows * logitSubsets(VOCABULARY));
    const best = gpu.buffer("best", bytes);
    const recorder = new Recorder(gpu);
    const places = gpu.buffer("mask rows", 4 * rows);
    gpu.write(places, 0, Uint32Array.from({ length: rows }, (_, row) => row));
    const bits = new Uint32Array(rows * maskWords(VOCABULARY)).fill(0x5555_5555);
    const masks = gpu.buffer("masks", bits.byteLength);
    const time = async (passes: number, maskCount: number) => {
      const began = performance.now();
      for (let pass = 0; pass < passes; pass++) {
        gpu.write(masks, 0, bits, maskCount / rows * bits.byteLength);
        maskLogits(recorder, mask, places, masks, logits, VOCABULARY, maskCount);
        sumParts(recorder, part, logits, wanted, shares, maxima, VOCABULARY, rows);
        sumLogits(recorder, sum, shares, logits, wanted, sums, VOCABULARY, rows);
        topTokens(recorder, top, logits, maxima, best, VOCABULARY, rows);
      }
      await readback.read(recorder, best, 0, 16);
      return performance.now() - began;
    };
    for (const maskCount of [0, rows]) {
      await time(1, maskCount);
      const spent = await time(PASSES, maskCount) - await time(1, maskCount);
      const what = `${rows} rows, ${maskCount} masked: sums and best ${BEST_TOKENS}`;
      console.log(`  ${what} ${(spent / (PASSES - 1) * 1000).toFixed(0)} us`);
    }
  }
  gpu.destroy();
}

async function benchDecode(directory: string): Promise<void> {
  const folder = await openModelFolder(directory);
  const { shape } = folder.config;
  const device = await openDevice("webgpu", shape);
  await loadWeights(folder, device);
  const { pieceTokens } = device;
  const capacity = planCapacity(shape, {
    stepRows: 128,
    slots: 8,
    contextTokens: 1_024,
    latentFormat: "f16",
    memoryBytes: undefined,
    weightBytes: folder.weightBytes,
    bufferBytesMax: device.bufferBytesMax,
    pieceTokens,
  });
  await device.configure(capacity);
  loadTextModule();
  const sampler = new Sampler(shape.vocabularySize);
  // The same device, without the next step begun ahead.
  const waiting: Device = new Proxy(device, {
    get(target, name) {
      if (name === "feedsTokens") return false;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  console.log(`${device.description}: greedy decode of ${folder.id}`);
  for (const batch of [1, 8]) {
    const rates: string[] = [];
    for (const [name, own] of [["waiting", waiting], ["ahead", device]] as const) {
      const limits = { ...capacity, pieceTokens };
      const generation = new Generation(own, shape, sampler, limits);
      const rate = async () => {
        for (let id = 1; id <= batch; id++) {
          generation.submit(id, {
            promptIds: Uint32Array.of(id, 5, 9),
            maxTokens: TOKENS,
            sampling: GREEDY_SAMPLING,
            minTokens: 0,
            grammar: null,
            stopIds: [],
            logprobs: null,
            promptLogprobs: false,
            progress: false,
            owner: "",
          });
        }
        await generation.step();
        const began = performance.now();
        while (await generation.step() !== null);
        return (TOKENS - 1) * batch / (performance.now() - began) * 1000;
      };
      await rate();
      rates.push(`${name} ${Math.max(await rate(), await rate(), await rate()).toFixed(0)}`);
    }
    console.log(
      `  batch ${batch}: tokens/s ${rates.join(", ")}; ${device.dispatchCount} dispatches`,
    );
  }
  device.destroy();
}

await benchPass();
await benchDecode(Deno.args[0] ?? EMBEDDED);
