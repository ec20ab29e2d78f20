/** What a request's penalties and biases change in the logits of its next token. */
import type { LogitEdits } from "../model/device.ts";
import { PENALTY_WINDOW_TOKENS } from "../limits.ts";
import type { GenerateRequest } from "./engine.ts";

/** Added to the logit of what may not be chosen: beyond any bias, and finite, as rows must be. */
export const BANNED = -1e30;

/** Counts of ids in the last PENALTY_WINDOW_TOKENS tokens of a sequence. */
export class Penalties {
  /** Times an id stands in the window, in prompt or output. */
  readonly #present = new Map<number, number>();
  /** Times it was generated. */
  readonly #generated = new Map<number, number>();
  readonly #window: { readonly id: number; readonly isGenerated: boolean }[] = [];
  readonly #bias: ReadonlyMap<number, number>;
  #start = 0;
  #generatedTokens = 0;

  private constructor(private readonly request: GenerateRequest) {
    this.#bias = new Map(request.sampling.logitBias);
    if (!this.#counts) return;
    const { promptIds } = request;
    for (
      let at = Math.max(0, promptIds.length - PENALTY_WINDOW_TOKENS);
      at < promptIds.length;
      at++
    ) {
      this.#push(promptIds[at]!, false);
    }
  }

  /** null when the request asks for none. */
  static of(request: GenerateRequest): Penalties | null {
    const penalties = new Penalties(request);
    return penalties.changes || request.sampling.logitBias.length > 0 ? penalties : null;
  }

  /** Whether the edits depend on the tokens generated so far. */
  get changes(): boolean {
    return this.#counts || this.#isShort;
  }

  /** Whether tokens are counted. */
  get #counts(): boolean {
    const { frequencyPenalty, presencePenalty, repetitionPenalty } = this.request.sampling;
    return frequencyPenalty !== 0 || presencePenalty !== 0 || repetitionPenalty !== 1;
  }

  /** Whether the text is shorter than it may end. */
  get #isShort(): boolean {
    return this.#generatedTokens < this.request.minTokens;
  }

  /** Counts a generated token. */
  push(id: number): void {
    this.#generatedTokens++;
    if (this.#counts) this.#push(id, true);
  }

  /**
   * The edits of the next token's logits. Frequency and presence penalties as OpenAI's API gives
   * them: logit - count * frequency - (count > 0 ? presence : 0).
   */
  edits(): LogitEdits {
    const { frequencyPenalty, presencePenalty, repetitionPenalty } = this.request.sampling;
    const counted = repetitionPenalty !== 1 ? this.#present : this.#generated;
    const banned = new Set(this.#isShort ? this.request.stopIds : []);
    const ids = Uint32Array.from(new Set([...counted.keys(), ...this.#bias.keys(), ...banned]));
    const divide = new Float32Array(ids.length).fill(1);
    const add = new Float32Array(ids.length);
    ids.forEach((id, at) => {
      const generated = this.#generated.get(id) ?? 0;
      if (this.#present.has(id)) divide[at] = repetitionPenalty;
      add[at] = (this.#bias.get(id) ?? 0) - generated * frequencyPenalty -
        (generated > 0 ? presencePenalty : 0) + (banned.has(id) ? BANNED : 0);
    });
    return { ids, divide, add };
  }

  #push(id: number, isGenerated: boolean): void {
    this.#window.push({ id, isGenerated });
    count(this.#present, id, 1);
    if (isGenerated) count(this.#generated, id, 1);
    if (this.#window.length - this.#start <= PENALTY_WINDOW_TOKENS) return;
    const left = this.#window[this.#start++]!;
    count(this.#present, left.id, -1);
    if (left.isGenerated) count(this.#generated, left.id, -1);
    if (this.#start < PENALTY_WINDOW_TOKENS) return;
    this.#window.splice(0, this.#start);
    this.#start = 0;
  }
}

function count(counts: Map<number, number>, id: number, change: number): void {
  const next = (counts.get(id) ?? 0) + change;
  if (next === 0) counts.delete(id);
  else counts.set(id, next);
}
