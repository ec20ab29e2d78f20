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

/** A grammar and the part of a text that it holds. */
export interface HeldGrammar extends Grammar {
  /**
   * Tokens that begin a part of the grammar's form; the text around such parts is free. Left out:
   * the whole text has the form.
   */
  readonly startIds?: readonly number[];
}

/** Follows one text. */
export interface TokenMatcher {
  /** Whether the next token is held to the grammar. */
  readonly holds: boolean;
  /**
   * The bit mask of the tokens that may come next, see `wasm/bit_mask.ts`; at least one may.
   * `stopIds`: those that end the text, allowed where it may end. Holds until the next call.
   */
  mask(stopIds: readonly number[]): Uint32Array;
  /** Tokens that must come next, as far as they are certain. */
  forced(): Uint32Array;
  consume(id: number): void;
  /** Whether nothing but the end can follow. */
  readonly isOver: boolean;
  free(): void;
}

export interface GrammarSource {
  /** Throws RequestError for a grammar that can't be used. */
  match(grammar: HeldGrammar): TokenMatcher;
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

  match(grammar: HeldGrammar): TokenMatcher {
    const vocabulary = this.#vocabulary ??= this.#makeVocabulary();
    const { endId, vocabularySize } = this;
    const { kind, source, startIds } = grammar;
    const make = () =>
      refusing(() =>
        new Matcher(new GrammarMatcher(vocabulary, { kind, source }), endId, vocabularySize)
      );
    return startIds === undefined ? make() : new PartMatcher(make, startIds);
  }

  #makeVocabulary(): GrammarVocabulary {
    loadGrammarModule();
    const { tiktokenModel, rankCount, specials } = this.files;
    const tokenizer = new Tokenizer(tiktokenModel, specials, this.vocabularySize);
    return new GrammarVocabulary(
      (id) => tokenizer.tokenBytes(id),
      (id) => id >= rankCount,
      this.vocabularySize,
      this.endId,
      (text) => tokenizer.encode(text),
    );
  }
}

/** Holds the parts of a text that begin with certain tokens. */
export class PartMatcher implements TokenMatcher {
  readonly isOver = false;
  /** Of the part under way, or of the next one. */
  #inner: TokenMatcher | null;
  #isStarted = false;

  /** `make`: called now, which refuses a grammar that is none, and once for each later part. */
  constructor(
    private readonly make: () => TokenMatcher,
    private readonly startIds: readonly number[],
  ) {
    this.#inner = make();
  }

  get holds(): boolean {
    return this.#isStarted;
  }

  mask(stopIds: readonly number[]): Uint32Array {
    return this.#inner!.mask(stopIds);
  }

  forced(): Uint32Array {
    return this.#isStarted ? this.#inner!.forced() : new Uint32Array(0);
  }

  consume(id: number): void {
    if (!this.#isStarted && !this.startIds.includes(id)) return;
    this.#isStarted = true;
    this.#inner ??= this.make();
    this.#inner.consume(id);
    if (!this.#inner.isOver) return;
    this.free();
    this.#isStarted = false;
  }

  free(): void {
    this.#inner?.free();
    this.#inner = null;
  }
}

class Matcher implements TokenMatcher {
  readonly holds = true;
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

  forced(): Uint32Array {
    return refusing(() => this.inner.forced());
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
