/**
 * A sequence's logits have the same bits alone and among any neighbours: the engine over a golden
 * checkpoint, with neighbours that come, prefill, decode and leave at other times.
 */
import assert from "node:assert/strict";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import { GREEDY_SAMPLING, type TokenSampler } from "../../runtime/engine/sampling.ts";
import type { Capacity, Device, ModelShape } from "../../runtime/model/device.ts";
import { loadWeights } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { randomSource } from "../reference/random.ts";

const SEED = 81;
const SLOTS = 8;
const PAGE_TOKENS = 16;
/** The watched request's seed, by which the sampler knows its rows. */
const WATCHED = 1;
const PROMPT_TOKENS = 53;
const GENERATED_TOKENS = 12;

type OpenDevice = (shape: ModelShape) => Promise<Device>;

/** What one run showed of the watched request. */
interface Watched {
  readonly rows: Float32Array[];
  readonly promptLogprobs: number[];
  readonly tokens: number[];
}

export function registerInvarianceTests(kind: string, open: OpenDevice): void {
  Deno.test(`${kind}: logits have the same bits among 0, 1, 3 and 7 neighbours`, async () => {
    const folder = await openModelFolder(new URL("./odd", import.meta.url).pathname);
    const { shape } = folder.config;
    const device = await open(shape);
    await loadWeights(folder, device);
    const { pieceTokens } = device;
    const rows = SLOTS + 2 * pieceTokens + 5;
    const pages = SLOTS * 6;
    const capacity: Capacity = {
      slots: SLOTS,
      pages,
      pageTokens: PAGE_TOKENS,
      rows,
      logitRows: rows,
      sequences: SLOTS,
      pagesPerSequence: 8,
      logitEdits: 16,
      latentFormat: "f16",
    };
    await device.configure(capacity);
    const limits = { ...capacity, pieceTokens };
    try {
      const alone = await run(device, shape, limits, 0, 1);
      assert.equal(alone.rows.length, GENERATED_TOKENS);
      for (const [neighbours, temperature] of [[0, 0], [1, 1], [3, 1], [7, 1], [7, 0]] as const) {
        const found = await run(device, shape, limits, neighbours, temperature);
        const what = `seed ${SEED}, ${neighbours} neighbours, temperature ${temperature}`;
        assert.deepEqual(found.tokens, alone.tokens, what);
        assert.deepEqual(found.promptLogprobs, alone.promptLogprobs, what);
        // At temperature 0 tokens may be taken from the candidates, without the rows.
        if (temperature > 0) assert.deepEqual(found.rows, alone.rows, what);
      }
    } finally {
      device.destroy();
    }
  });
}

async function run(
  device: Device,
  shape: ModelShape,
  limits: ConstructorParameters<typeof Generation>[3],
  neighbours: number,
  temperature: number,
): Promise<Watched> {
  const random = randomSource(SEED + neighbours);
  const watched: Watched = { rows: [], promptLogprobs: [], tokens: [] };
  const generation = new Generation(device, shape, watchingSampler(watched), limits);
  const prompt = tokensOf(randomSource(SEED), PROMPT_TOKENS, shape);
  const later: (() => void)[] = [];
  for (let neighbour = 0; neighbour < neighbours; neighbour++) {
    const length = 1 + Math.floor(random() * 70);
    const request = requestOf(tokensOf(random, length, shape), 2 + neighbour, temperature);
    const submit = () => generation.submit(2 + neighbour, request);
    if (random() < 0.5) submit();
    else later.push(submit);
  }
  for (let step = 0; step < 3 && neighbours > 0; step++) await generation.step();
  const own = requestOf(prompt, WATCHED, temperature);
  generation.submit(WATCHED, { ...own, logprobs: 0, promptLogprobs: true });
  for (let step = 0; step < 10_000; step++) {
    if (step % 2 === 1) later.shift()?.();
    const events = await generation.step();
    if (events === null && later.length === 0) break;
    for (const item of events ?? []) {
      assert.ok("event" in item, JSON.stringify(item));
      if (item.id !== WATCHED) continue;
      if (item.event.type === "token") watched.tokens.push(item.event.id);
      if (item.event.type === "prompt") {
        watched.promptLogprobs.push(...item.event.logprobs.map(({ logprob }) => logprob));
      }
    }
  }
  const { running, queued, freeSlots } = generation.stats;
  assert.deepEqual([running, queued, freeSlots], [0, 0, SLOTS]);
  return watched;
}

function tokensOf(random: () => number, count: number, shape: ModelShape): Uint32Array {
  return Uint32Array.from(
    { length: count },
    () => Math.floor(random() * shape.vocabularySize),
  );
}

function requestOf(promptIds: Uint32Array, seed: number, temperature: number): GenerateRequest {
  return {
    promptIds,
    maxTokens: GENERATED_TOKENS,
    sampling: { ...GREEDY_SAMPLING, temperature, seed },
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
  };
}

/** Always the best token; keeps the whole rows of the watched request. */
function watchingSampler(watched: Watched): TokenSampler {
  const best = (logits: Float32Array) => {
    let found = 0;
    logits.forEach((logit, id) => found = logit > logits[found]! ? id : found);
    return found;
  };
  return {
    sample(logits, { seed }) {
      if (seed === WATCHED) watched.rows.push(logits.slice());
      return best(logits);
    },
    // Whole rows where the device does not go on by itself.
    sampleCandidates: (ids, _logits, _sum, { temperature }) => temperature === 0 ? ids[0]! : null,
    logprobs(logits, id) {
      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
      return { logprob: logits[id]! - Math.log(sum), top: [] };
    },
  };
}
