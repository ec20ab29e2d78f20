/** Grammars that hold generated texts to a form, over the model's own tokens. */
import {
  allows,
  type Grammar,
  GrammarMatcher,
  GrammarVocabulary,
  loadGrammarModule,
} from "../../wasm/grammar.ts";
import { Tokenizer } from "../../wasm/text.ts";
import { RequestError } from "../errors.ts";
import type { TokenizerFiles } from "../weights/tokenizer_files.ts";

export type { Grammar } from "../../wasm/grammar.ts";

/** Follows one text. */
export interface TokenMatcher {
  /** Does the next token's work ahead of `restrict`. */
  prepare(): void;
  /**
   * Sets the logits of all tokens that may not come to -Infinity. `stopIds`: those that end the
   * text, allowed where it may end. logits: [vocabulary size].
   */
  restrict(logits: Float32Array, stopIds: readonly number[]): void;
  consume(id: number): void;
  /** Whether nothing but the end can follow. */
  readonly isOver: boolean;
  free(): void;
}

export interface GrammarSource {
  /** Throws RequestError for a grammar that can't be used. */
  match(grammar: Grammar): TokenMatcher;
}

/** Makes everything at the first grammar: whoever asks for none pays nothing. */
export class Grammars implements GrammarSource {
  #vocabulary: GrammarVocabulary | null = null;

  /** `endId`: the token that ends a text. */
  constructor(
    private readonly files: TokenizerFiles,
    private readonly vocabularySize: number,
    private readonly endId: number,
  ) {}

  match(grammar: Grammar): TokenMatcher {
    const vocabulary = this.#vocabulary ??= this.#makeVocabulary();
    return refusing(() => new Matcher(new GrammarMatcher(vocabulary, grammar), this.endId));
  }

  #makeVocabulary(): GrammarVocabulary {
    loadGrammarModule();
    const { tiktokenModel, rankCount, specials } = this.files;
    const tokenizer = new Tokenizer(tiktokenModel, specials, this.vocabularySize);
    try {
      return new GrammarVocabulary(
        (id) => tokenizer.tokenBytes(id),
        (id) => id >= rankCount,
        this.vocabularySize,
        this.endId,
      );
    } finally {
      tokenizer.free();
    }
  }
}

class Matcher implements TokenMatcher {
  constructor(private readonly inner: GrammarMatcher, private readonly endId: number) {}

  prepare(): void {
    refusing(() => this.inner.mask());
  }

  restrict(logits: Float32Array, stopIds: readonly number[]): void {
    const mask = refusing(() => this.inner.mask());
    const ends = allows(mask, this.endId) ? stopIds.map((id) => [id, logits[id]!] as const) : [];
    for (let id = 0; id < logits.length; id++) {
      if (!allows(mask, id)) logits[id] = -Infinity;
    }
    for (const [id, logit] of ends) logits[id] = logit;
  }

  consume(id: number): void {
    refusing(() => this.inner.consume(id));
  }

  get isOver(): boolean {
    return this.inner.isOver;
  }

  free(): void {
    this.inner.free();
  }
}

/** What the grammar's own words refuse is the request's fault; a trap of the module is not. */
function refusing<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError || !(error instanceof Error)) throw error;
    const [line] = error.message.split("\n");
    throw new RequestError(`follow the grammar: ${line}`, null, "invalid_grammar");
  }
}
