/**
 * Texts held to a mask: the engine over a golden checkpoint chooses the same tokens whether the
 * device masks a row or the host masks the whole of it, and free neighbours keep theirs.
 */
import assert from "node:assert/strict";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import type { GrammarSource, TokenMatcher } from "../../runtime/engine/grammars.ts";
import { GREEDY_SAMPLING } from "../../runtime/engine/sampling.ts";
import type { Capacity, Device, ModelShape } from "../../runtime/model/device.ts";
import { loadWeights } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { maskWords } from "../../wasm/bit_mask.ts";
import { loadTextModule, Sampler } from "../../wasm/text.ts";

const SLOTS = 4;
const GENERATED_TOKENS = 10;
const PROMPTS = [[5, 9, 40], [7, 7, 12, 3, 90, 41], [2], [61, 4, 8, 8]];

/** Each token may be any whose id leaves the same remainder as the number of those before it. */
class ModularMatcher implements TokenMatcher {
  readonly holds = true;
  readonly isOver = false;
  #count = 0;
  readonly #mask: Uint32Array;

  constructor(private readonly vocabularySize: number, private readonly divisor: number) {
    this.#mask = new Uint32Array(maskWords(vocabularySize));
  }

  mask(): Uint32Array {
    this.#mask.fill(0);
    for (let id = 0; id < this.vocabularySize; id++) {
      if (this.#allows(id)) this.#mask[id >>> 5]! |= 1 << (id & 31);
    }
    return this.#mask;
  }

  /** After every second token, where there is but one. */
  forced(): Uint32Array {
    const isForced = this.divisor === this.vocabularySize && this.#count % 2 === 0;
    return Uint32Array.from(isForced ? [this.#count, this.#count + 1, this.#count + 2] : []);
  }

  consume(id: number): void {
    assert.ok(this.#allows(id), `token ${this.#count} is ${id}`);
    this.#count++;
  }

  free(): void {}

  #allows(id: number): boolean {
    return id % this.divisor === this.#count % this.divisor;
  }
}

export function registerMaskTests(
  kind: string,
  open: (shape: ModelShape) => Promise<Device>,
): void {
  Deno.test(`${kind}: masked rows give the tokens that masked whole rows give`, async () => {
    loadTextModule();
    const folder = await openModelFolder(new URL("./odd", import.meta.url).pathname);
    const { shape } = folder.config;
    const device = await open(shape);
    try {
      await loadWeights(folder, device);
      const capacity = capacityFor(device);
      await device.configure(capacity);
      const limits = { ...capacity, pieceTokens: device.pieceTokens };
      const source: GrammarSource = {
        match: ({ source }) => new ModularMatcher(shape.vocabularySize, Number(source)),
      };
      const make = () =>
        new Generation(
          device,
          shape,
          new Sampler(shape.vocabularySize),
          limits,
          undefined,
          undefined,
          source,
        );
      for (const temperature of [0, 1]) {
        // The third and fourth are free. A divisor of the vocabulary's size leaves one token.
        const divisors = [3, shape.vocabularySize, null, null];
        const requests = PROMPTS.map((prompt, at) => requestOf(prompt, divisors[at]!, temperature));
        const together = await run(make(), requests);
        const onHost = await run(make(), requests.map((request) => ({ ...request, logprobs: 0 })));
        assert.deepEqual(together, onHost, `temperature ${temperature}`);
        assert.deepEqual(together[1], Array.from({ length: GENERATED_TOKENS }, (_, at) => at));
        for (const [at, request] of requests.entries()) {
          assert.deepEqual((await run(make(), [request]))[0], together[at], `request ${at} alone`);
        }
      }
    } finally {
      device.destroy();
    }
  });
}

function capacityFor({ pieceTokens }: Device): Capacity {
  const rows = SLOTS + pieceTokens;
  return {
    slots: SLOTS,
    pages: SLOTS * 4,
    pageTokens: 16,
    rows,
    logitRows: rows,
    sequences: SLOTS,
    pagesPerSequence: 4,
    logitEdits: 16,
    latentFormat: "f16",
  };
}

function requestOf(prompt: number[], divisor: number | null, temperature: number): GenerateRequest {
  return {
    promptIds: Uint32Array.from(prompt),
    maxTokens: GENERATED_TOKENS,
    sampling: { ...GREEDY_SAMPLING, temperature, seed: 7 },
    minTokens: 0,
    grammar: divisor === null ? null : { kind: "regex", source: String(divisor) },
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
  };
}

/** The tokens of each request, all submitted at once. */
async function run(generation: Generation, requests: GenerateRequest[]): Promise<number[][]> {
  const tokens: number[][] = requests.map(() => []);
  requests.forEach((request, id) => generation.submit(id, request));
  for (let events = await generation.step(); events !== null; events = await generation.step()) {
    for (const item of events) {
      assert.ok("event" in item, JSON.stringify(item));
      if (item.event.type === "token") tokens[item.id]!.push(item.event.id);
    }
  }
  return tokens;
}
