/**
 * Compares a device with the oracle on the checkpoints of this folder: logits, residual stream, KDA
 * states, latents, router choices and greedy tokens. `make_golden.py` wrote both.
 */
import assert from "node:assert";
import type { Capacity, Device, ModelShape, StepPlan } from "../../runtime/model/device.ts";
import { observeStep, startStep } from "../../runtime/model/kimi_linear.ts";
import { loadWeights } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { readSafetensors, type StoredTensor } from "../tools/safetensors_reader.ts";
import { plainRows, wholeRows } from "../tools/logit_rows.ts";

export const CHECKPOINTS = ["micro", "odd", "fp8"] as const;
export type OpenDevice = (shape: ModelShape) => Promise<Device>;

const PAGE_TOKENS = 16;
const GREEDY_TOKENS = 24;

/** Largest and mean absolute difference of two rows of numbers. */
export interface Difference {
  readonly largest: number;
  readonly mean: number;
}

export function difference(found: ArrayLike<number>, wanted: ArrayLike<number>): Difference {
  assert.strictEqual(found.length, wanted.length);
  let largest = 0;
  let sum = 0;
  for (let index = 0; index < wanted.length; index++) {
    const distance = Math.abs(found[index]! - wanted[index]!);
    // NaN must not pass for small.
    largest = distance <= largest ? largest : distance;
    sum += distance;
  }
  return { largest, mean: sum / wanted.length };
}

export function argmax(row: ArrayLike<number>): number {
  let best = 0;
  for (let index = 1; index < row.length; index++) if (row[index]! > row[best]!) best = index;
  return best;
}

/** One checkpoint loaded on one device, with the oracle's outputs beside it. */
export class GoldenModel {
  #past = 0;

  private constructor(
    readonly device: Device,
    readonly shape: ModelShape,
    readonly oracle: Map<string, StoredTensor>,
    readonly weights: Map<string, StoredTensor>,
    private readonly pages: Uint32Array,
  ) {}

  static async load(
    name: string,
    open: OpenDevice,
    latentFormat: "f16" | "f32",
  ): Promise<GoldenModel> {
    const directory = new URL(`./${name}`, import.meta.url).pathname;
    const folder = await openModelFolder(directory);
    const { shape } = folder.config;
    const device = await open(shape);
    await loadWeights(folder, device);
    const oracle = readSafetensors(`${directory}/golden.safetensors`);
    const prompt = oracle.get("input_ids")!.values.length;
    const pageCount = Math.ceil((prompt + GREEDY_TOKENS) / PAGE_TOKENS);
    const capacity: Capacity = {
      slots: 2,
      pages: pageCount + 1,
      pageTokens: PAGE_TOKENS,
      rows: prompt,
      logitRows: prompt,
      logitEdits: 64,
      sequences: 2,
      pagesPerSequence: pageCount,
      latentFormat,
    };
    await device.configure(capacity);
    // Out of order, so that a device that ignores the page table fails.
    const pages = Uint32Array.from({ length: pageCount }, (_, index) => pageCount - index);
    const weights = readSafetensors(`${directory}/model.safetensors`);
    return new GoldenModel(device, shape, oracle, weights, pages);
  }

  get promptIds(): Uint32Array {
    return Uint32Array.from(this.oracle.get("input_ids")!.values);
  }

  values(name: string): Float32Array {
    const tensor = this.oracle.get(name);
    assert.ok(tensor !== undefined, `the oracle has no "${name}"`);
    return tensor.values as Float32Array;
  }

  /** Forgets the sequence: its slot is zeroed and the next tokens start at position 0. */
  restart(): void {
    this.device.zeroSlot(1);
    this.#past = 0;
  }

  /** Runs the next tokens of the sequence in one step; logits of all rows, or of none, copied. */
  async step(
    tokens: Uint32Array,
    observe?: (layer: number) => Promise<void>,
    wantLogits = true,
  ): Promise<Float32Array> {
    const used = Math.ceil((this.#past + tokens.length) / PAGE_TOKENS);
    const plan: StepPlan = {
      tokens,
      sequences: [{
        slot: 1,
        rowStart: 0,
        rowCount: tokens.length,
        past: this.#past,
        pages: this.pages.slice(0, used),
      }],
      feeds: null,
      logits: plainRows(wantLogits ? tokens.keys() : []),
    };
    const result = observe === undefined
      ? await startStep(this.device, this.shape, plan).result()
      : await observeStep(this.device, this.shape, plan, observe);
    assert.ok(result.nonFinite.every((flag) => flag === 0), "logits must be finite");
    this.#past += tokens.length;
    return await wholeRows(result, plan.logits.length);
  }

  /** The whole prompt in pieces of `chunk` tokens: logits of every position. */
  async prefill(
    chunk: number,
    observe?: (layer: number) => Promise<void>,
  ): Promise<Float32Array> {
    this.restart();
    const ids = this.promptIds;
    const logits = new Float32Array(ids.length * this.shape.vocabularySize);
    for (let start = 0; start < ids.length; start += chunk) {
      const rows = await this.step(ids.slice(start, start + chunk), observe);
      logits.set(rows, start * this.shape.vocabularySize);
    }
    return logits;
  }

  /** Latents of MLA layer `layer` after the prompt, [prompt, latent + shared]. */
  latents(layer: number): Promise<Float32Array> {
    return this.device.readLatents(layer, this.pages, this.promptIds.length);
  }

  /** Share of positions whose best token is the oracle's. */
  agreement(logits: Float32Array): number {
    const wanted = this.values("logits");
    const width = this.shape.vocabularySize;
    const rows = logits.length / width;
    let equal = 0;
    for (let row = 0; row < rows; row++) {
      const range = [row * width, (row + 1) * width] as const;
      if (argmax(logits.subarray(...range)) === argmax(wanted.subarray(...range))) equal++;
    }
    return equal / rows;
  }
}
