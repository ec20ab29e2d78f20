/** Picks tokens from rows of logits; see `text.ts`. */
import * as wasm from "./text/pkg/kedge_text.js";
import { checkInteger, textMemory } from "./text_module.ts";

/** Tokens of a row that sampleCandidates() takes: wasm/text/src/candidates.rs. */
const BEST_TOKENS = 256;

export interface SampleParameters {
  /** >= 0; 0 picks the largest logit, of equals the lowest id. */
  readonly temperature: number;
  /** Keeps this many of the most probable tokens; 0 keeps all. */
  readonly topK: number;
  /**
   * 0 <= typicalP <= 1: keeps the tokens whose surprise is nearest the expected one until they have
   * at least this share together, at least one; 1 keeps all.
   */
  readonly typicalP: number;
  /**
   * 0 <= topP <= 1: keeps the fewest most probable tokens that have at least this share together,
   * at least one.
   */
  readonly topP: number;
  /** 0 <= minP <= 1: keeps tokens at least this share as probable as the most probable one. */
  readonly minP: number;
  /** 0 <= seed < 2^53. */
  readonly seed: number;
}

/**
 * Picks tokens from rows of logits.
 *
 * The filters apply to softmax(logits / temperature) in the order top-k, typical-p, top-p, min-p;
 * each counts shares of what the one before left. Of equally probable tokens the lower id counts as
 * more probable. Weights of whole rows are f32, within 4e-6 of the exact ones; tokens 2^24 times
 * the vocabulary size less probable than the best have weight 0.
 *
 * The draw is the first token at which the cumulated weight of the kept tokens exceeds u times its
 * sum: first the 256 best, best first, then all others in the order of their ids; with typical-p
 * and more than 256 tokens all in the order of their ids. Where a nucleus is larger than the 256
 * best a token outside of it is drawn again with the next u. u = uniform(seed, position) is output
 * number `position` of the SplitMix64 generator whose state is the first output of one seeded with
 * `seed`, its upper 53 bits as a fraction; the further ones are outputs of a generator with that
 * state.
 */
export class Sampler {
  #sampler: wasm.Sampler;
  #vocabularySize: number;

  constructor(vocabularySize: number) {
    textMemory();
    checkInteger("make sampler: vocabulary size - 1", vocabularySize - 1, 2 ** 28);
    this.#vocabularySize = vocabularySize;
    this.#sampler = new wasm.Sampler(vocabularySize);
  }

  #setRow(logits: Float32Array): void {
    const size = this.#vocabularySize;
    if (logits.length !== size) {
      throw new Error(`read logits: wanted ${size} values, found ${logits.length}`);
    }
    new Float32Array(textMemory(), this.#sampler.row_address(), size).set(logits);
  }

  /**
   * One token for `position` of a sequence. logits: [vocabularySize]. Throws when one of them is
   * NaN or
   * +Infinity, or all are -Infinity; a token at -Infinity is never drawn.
   */
  sample(logits: Float32Array, parameters: SampleParameters, position: number): number {
    checkParameters(parameters);
    checkInteger("sample token: position", position, 2 ** 53);
    this.#setRow(logits);
    const { temperature, topK, typicalP, topP, minP, seed } = parameters;
    return this.#sampler.sample(temperature, topK, typicalP, topP, minP, seed, position);
  }

  /**
   * The token that sample() gives, from the best of its row alone: ids and logits [min(256,
   * vocabularySize)], best first, and the natural logarithm of the sum of exp(logit / temperature)
   * over the row. null when these can't decide it.
   */
  sampleCandidates(
    ids: Uint32Array,
    logits: Float32Array,
    scaledLogSumExp: number,
    parameters: SampleParameters,
    position: number,
  ): number | null {
    checkParameters(parameters);
    checkInteger("sample token: position", position, 2 ** 53);
    const count = Math.min(BEST_TOKENS, this.#vocabularySize);
    if (ids.length !== count || logits.length !== count) {
      throw new Error(`sample token: wanted the ${count} best, found ${ids.length}`);
    }
    const { temperature, topK, typicalP, topP, minP, seed } = parameters;
    if (temperature === 0) return ids[0]!;
    const token = this.#sampler.choose(
      ids,
      logits,
      scaledLogSumExp,
      ...[temperature, topK, typicalP, topP, minP, seed, position] as const,
    );
    return token < 0 ? null : token;
  }

  /**
   * Natural log-probabilities of the row as it is, without temperature and filters: of `id`, and of
   * the topCount best, best first, of equals the lower id first. Throws as sample() does.
   */
  logprobs(
    logits: Float32Array,
    id: number,
    topCount: number,
  ): { logprob: number; top: { id: number; logprob: number }[] } {
    checkInteger("compute log-probabilities: id", id, this.#vocabularySize);
    checkInteger("compute log-probabilities: count", topCount, 2 ** 31);
    this.#setRow(logits);
    const values = this.#sampler.logprobs(id, topCount);
    const top = Array.from(
      { length: (values.length - 1) / 2 },
      (_, i) => ({ id: values[1 + 2 * i]!, logprob: values[2 + 2 * i]! }),
    );
    return { logprob: values[0]!, top };
  }

  free(): void {
    this.#sampler.free();
  }
}

function checkParameters(parameters: SampleParameters): void {
  const { temperature, topK, typicalP, topP, minP, seed } = parameters;
  const check = (holds: boolean, name: string, wanted: string, found: number) => {
    if (!holds) throw new Error(`sample token: wanted ${name} ${wanted}, found ${found}`);
  };
  check(temperature >= 0 && temperature < Infinity, "temperature", ">= 0", temperature);
  check(typicalP >= 0 && typicalP <= 1, "typicalP", ">= 0 and <= 1", typicalP);
  check(topP >= 0 && topP <= 1, "topP", ">= 0 and <= 1", topP);
  check(minP >= 0 && minP <= 1, "minP", ">= 0 and <= 1", minP);
  checkInteger("sample token: topK", topK, 2 ** 32);
  checkInteger("sample token: seed", seed, 2 ** 53);
}
