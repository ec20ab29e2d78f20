/** Tokens and log-probabilities from a step's result: from its candidates, else from whole rows. */
import type { StepResult } from "../model/device.ts";
import type { SamplingParameters, TokenLogprob } from "./engine.ts";

/** Always the likeliest token, nothing changed. */
export const GREEDY_SAMPLING: SamplingParameters = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  seed: 0,
};

/** What picks tokens: the text module's sampler. */
export interface TokenSampler {
  sample(logits: Float32Array, parameters: SamplingParameters, position: number): number;
  /** From the best of a row; null when they can't decide. */
  sampleCandidates(
    ids: Uint32Array,
    logits: Float32Array,
    scaledLogSumExp: number,
    parameters: SamplingParameters,
    position: number,
  ): number | null;
  logprobs(
    logits: Float32Array,
    id: number,
    topCount: number,
  ): { logprob: number; top: { id: number; logprob: number }[] };
}

/** The token at `position` of a sequence from logit row `row`. */
export async function chooseToken(
  sampler: TokenSampler,
  result: StepResult,
  row: number,
  parameters: SamplingParameters,
  position: number,
): Promise<number> {
  const best = bestOf(result, row);
  if (best !== null) {
    const { ids, logits, scaledLogSumExp } = best;
    const token = sampler.sampleCandidates(ids, logits, scaledLogSumExp, parameters, position);
    if (token !== null) return token;
  }
  return sampler.sample(await result.readRow(row), parameters, position);
}

/** Log-probability of a chosen token and of the `topCount` best. */
export async function logprobOf(
  sampler: TokenSampler,
  result: StepResult,
  row: number,
  id: number,
  topCount: number,
): Promise<TokenLogprob> {
  const best = bestOf(result, row);
  const at = best?.ids.indexOf(id) ?? -1;
  if (best === null || at < 0 || topCount > best.ids.length) {
    return { id, ...sampler.logprobs(await result.readRow(row), id, topCount) };
  }
  return { id, logprob: best.logits[at]! - best.logSumExp, top: topOf(best, topCount) };
}

/** Log-probability of the target that the step was given for `row`. */
export async function targetLogprob(
  sampler: TokenSampler,
  result: StepResult,
  row: number,
  id: number,
  topCount: number,
): Promise<TokenLogprob> {
  const best = bestOf(result, row);
  if (best === null || topCount > best.ids.length) {
    return { id, ...sampler.logprobs(await result.readRow(row), id, topCount) };
  }
  return { id, logprob: best.target - best.logSumExp, top: topOf(best, topCount) };
}

/** One row of candidates. */
interface RowCandidates {
  readonly ids: Uint32Array;
  readonly logits: Float32Array;
  readonly logSumExp: number;
  readonly scaledLogSumExp: number;
  readonly target: number;
}

function bestOf({ candidates }: StepResult, row: number): RowCandidates | null {
  if (candidates === null) return null;
  const { count, ids, logits, logSumExp, scaledLogSumExp, targets } = candidates;
  const [start, end] = [row * count, (row + 1) * count];
  return {
    ids: ids.subarray(start, end),
    logits: logits.subarray(start, end),
    logSumExp: logSumExp[row]!,
    scaledLogSumExp: scaledLogSumExp[row]!,
    target: targets[row]!,
  };
}

function topOf({ ids, logits, logSumExp }: RowCandidates, count: number) {
  return Array.from(
    ids.subarray(0, count),
    (id, at) => ({ id, logprob: logits[at]! - logSumExp }),
  );
}
