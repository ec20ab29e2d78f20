/** Grammars that hold generated texts to a form, over the model's own tokens. */
import { allows, maskWords } from "../../wasm/bit_mask.ts";
import {
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
  /**
   * The bit mask of the tokens that may come next, see `wasm/bit_mask.ts`; at least one may.
   * `stopIds`: those that end the text, allowed where it may end. Holds until the next call.
   */
  mask(stopIds: readonly number[]): Uint32Array;
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
    return refusing(() =>
      new Matcher(new GrammarMatcher(vocabulary, grammar), this.endId, this.vocabularySize)
    );
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
  readonly #mask: Uint32Array;

  constructor(
    private readonly inner: GrammarMatcher,
    private readonly endId: number,
    vocabularySize: number,
  ) {
    this.#mask = new Uint32Array(maskWords(vocabularySize));
  }

  mask(stopIds: readonly number[]): Uint32Array {
    const mask = this.#mask;
    mask.set(refusing(() => this.inner.mask()));
    if (allows(mask, this.endId)) { for (const id of stopIds) mask[id >>> 5]! |= 1 << (id & 31); }
    if (mask.some((word) => word !== 0)) return mask;
    throw new RequestError("follow the grammar: no token may come", null, "invalid_grammar");
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
