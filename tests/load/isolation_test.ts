/** A slot that others used, and were thrown out of, gives the same bits as a new one. */
import assert from "node:assert/strict";
import { openDevice } from "../../runtime/engine/devices.ts";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import { GREEDY_SAMPLING, type TokenSampler } from "../../runtime/engine/sampling.ts";
import type { Capacity } from "../../runtime/model/device.ts";
import { loadWeights } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { randomSource } from "../reference/random.ts";

const SEED = 95;
const REUSES = 1_000;
/** The canary's seed, by which the sampler knows its rows. */
const CANARY = 1;
const CAPACITY: Capacity = {
  slots: 2,
  pages: 12,
  pageTokens: 8,
  rows: 12,
  logitRows: 12,
  sequences: 2,
  pagesPerSequence: 6,
  logitEdits: 16,
  latentFormat: "f16",
};

Deno.test(`isolation: ${REUSES} reuses of slots after cancels leave no bit`, async () => {
  const folder = await openModelFolder(new URL("../golden/micro", import.meta.url).pathname);
  const { shape } = folder.config;
  const device = await openDevice("cpu", shape);
  await loadWeights(folder, device);
  await device.configure(CAPACITY);
  const rows: Float32Array[] = [];
  const sampler: TokenSampler = {
    sample(logits, { seed }) {
      if (seed === CANARY) rows.push(logits.slice());
      return logits.reduce((best, logit, id) => logit > logits[best]! ? id : best, 0);
    },
    sampleCandidates: () => null,
    logprobs: () => assert.fail("none are asked for"),
  };
  const limits = { ...CAPACITY, pieceTokens: device.pieceTokens };
  const generation = new Generation(device, shape, sampler, limits);
  const request = (promptIds: Uint32Array, maxTokens: number, seed: number): GenerateRequest => ({
    promptIds,
    maxTokens,
    sampling: { ...GREEDY_SAMPLING, seed },
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
  });
  const random = randomSource(SEED);
  const tokens = (count: number) =>
    Uint32Array.from({ length: count }, () => Math.floor(random() * shape.vocabularySize));
  const canary = request(tokens(11), 3, CANARY);
  const runCanary = async (): Promise<Float32Array[]> => {
    rows.length = 0;
    generation.submit(0, canary);
    while (await generation.step() !== null);
    return rows.splice(0);
  };
  const wanted = await runCanary();
  assert.equal(wanted.length, 3);
  let id = 0;
  for (let reuse = 0; reuse < REUSES; reuse++) {
    const ids = [++id, ++id];
    for (const own of ids) {
      generation.submit(own, request(tokens(1 + Math.floor(random() * 20)), 12, 2));
    }
    for (let step = Math.floor(random() * 8); step >= 0; step--) await generation.step();
    for (const own of ids) generation.cancel(own);
    // A canary after some, so that most slots pass through several hands first.
    if (reuse % 10 === 9) {
      assert.deepEqual(await runCanary(), wanted, `seed ${SEED}, reuse ${reuse}`);
    }
  }
  for (let slot = 0; slot < CAPACITY.slots; slot++) {
    for (const [layer, { mixer }] of shape.layers.entries()) {
      if (mixer !== "kda") continue;
      const { recurrent, convolution } = await device.readState(layer, slot);
      assert.ok(
        recurrent.every((value) => value === 0) && convolution.every((value) => value === 0),
      );
    }
  }
  device.destroy();
});
