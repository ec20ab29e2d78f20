/**
 * A device with whole rows of logits, whose "model" is a hash of all tokens a slot has seen and of
 * the token ids in its pages: any slip of slots, pages, positions or zeroing changes the logits.
 */
import assert from "node:assert";
import type {
  Capacity,
  Device,
  ModelShape,
  PendingStep,
  StepPlan,
} from "../../runtime/model/device.ts";
import { maskLogits } from "../../wasm/bit_mask.ts";

export const VOCABULARY = 97;

export const FAKE_SHAPE: ModelShape = {
  vocabularySize: VOCABULARY,
  hiddenSize: 1,
  layers: [],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 1, keyDim: 1, valueDim: 1, convolutionTaps: 4 },
  mla: { headCount: 1, latentDim: 1, nopeDim: 1, sharedKeyDim: 1, valueDim: 1 },
  denseIntermediateSize: 1,
  moe: {
    expertCount: 1,
    expertsPerToken: 1,
    intermediateSize: 1,
    sharedIntermediateSize: 0,
    routedScale: 1,
    renormalize: true,
  },
};

/** The next token of a sequence under the fake model, for greedy sampling. */
export function nextToken(tokens: readonly number[]): number {
  const hash = tokens.reduce(mix, 0);
  return best(fakeLogits(hash, tokens.reduce((sum, token) => sum + token, 0)));
}

function mix(hash: number, token: number): number {
  return (Math.imul(hash ^ (token + 1), 2_654_435_761) >>> 7) & 0xffffff;
}

function fakeLogits(hash: number, pageSum: number): Float32Array {
  return Float32Array.from(
    { length: VOCABULARY },
    (_, id) => ((hash + pageSum * 31 + id * 7_919) % 1_009) / 100,
  );
}

function best(logits: Float32Array): number {
  return logits.indexOf(Math.max(...logits));
}

export class FakeDevice implements Device {
  readonly kind = "fake";
  readonly description = "fake";
  readonly isSoftware = false;
  readonly pieceTokens = 1;
  readonly feedsTokens = false;
  readonly dispatchCount = 0;
  readonly allocatedBytes = 0;
  readonly compilation = { kernels: 0, shaderSeconds: 0, pipelineSeconds: 0 };
  readonly bufferBytesMax = Infinity;
  readonly zeroed: number[] = [];
  /** Rows of each step, for tests of the schedule. */
  readonly stepRows: number[] = [];
  /** Rows whose logits become NaN: sequences whose last token is this. */
  poison: number | null = null;
  readonly #state: number[];
  readonly #pages: Int32Array[];
  #plan: StepPlan | null = null;

  constructor(private readonly capacity: Capacity) {
    this.#state = new Array(capacity.slots).fill(0);
    this.#pages = Array.from(
      { length: capacity.pages },
      () => new Int32Array(capacity.pageTokens),
    );
  }

  declare(): void {}
  write(): void {}
  writeScales(): void {}
  writeGroupScales(): void {}
  timeDispatches(): Promise<null> {
    return Promise.resolve(null);
  }
  configure(): Promise<void> {
    return Promise.resolve();
  }
  zeroSlot(slot: number): void {
    this.#state[slot] = 0;
    this.zeroed.push(slot);
  }
  begin(plan: StepPlan): void {
    const { rows, logitRows, sequences } = this.capacity;
    assert.ok(plan.tokens.length <= rows && plan.logits.length <= logitRows);
    assert.ok(plan.sequences.length <= sequences);
    this.#plan = plan;
    this.stepRows.push(plan.tokens.length);
  }
  embed(): void {}
  logits(): void {}
  destroy(): void {}

  finish(): PendingStep {
    const plan = this.#plan!;
    const logits = new Float32Array(plan.logits.length * VOCABULARY);
    let at = 0;
    for (const sequence of plan.sequences) {
      for (let row = 0; row < sequence.rowCount; row++) {
        const token = plan.tokens[sequence.rowStart + row]!;
        const position = sequence.past + row;
        const pageSum = this.#store(sequence.pages, position, token);
        this.#state[sequence.slot] = mix(this.#state[sequence.slot]!, token);
        if (plan.logits[at]?.row !== sequence.rowStart + row) continue;
        logits.set(fakeLogits(this.#state[sequence.slot]!, pageSum), at * VOCABULARY);
        if (token === this.poison) logits[at * VOCABULARY] = NaN;
        at++;
      }
    }
    assert.strictEqual(at, plan.logits.length);
    for (const [row, { edits, mask }] of plan.logits.entries()) {
      edits?.ids.forEach((id, index) => logits[row * VOCABULARY + id]! += edits.add[index]!);
      const bits = mask?.() ?? null;
      const own = logits.subarray(row * VOCABULARY, (row + 1) * VOCABULARY);
      if (bits !== null) maskLogits(own, bits);
    }
    const nonFinite = Uint8Array.from(
      plan.logits,
      (_, index) => Number.isNaN(logits[index * VOCABULARY]) ? 1 : 0,
    );
    const readRow = (row: number) =>
      Promise.resolve(logits.slice(row * VOCABULARY, (row + 1) * VOCABULARY));
    return { result: () => Promise.resolve({ nonFinite, candidates: null, readRow }) };
  }

  /** Writes a position and returns the sum of all positions up to it, read through the pages. */
  #store(pages: Uint32Array, position: number, token: number): number {
    const { pageTokens } = this.capacity;
    const page = (index: number) => this.#pages[pages[Math.floor(index / pageTokens)]!]!;
    page(position)[position % pageTokens] = token;
    let sum = 0;
    for (let index = 0; index <= position; index++) sum += page(index)[index % pageTokens]!;
    return sum;
  }

  kda(): never {
    throw new Error("the fake model has no layers");
  }
  mla = this.kda;
  dense = this.kda;
  moe = this.kda;
  readState = this.kda;
  readLatents = this.kda;
  readResidual = this.kda;
  readRouting = this.kda;
  takeExpertUse = this.kda;
}
