/**
 * Which tokens may come next under a grammar: llguidance, compiled from the crate in `grammar/`.
 *
 * Errors are plain `Error`s. One that says `RuntimeError` means that the module trapped and is of
 * no use any more in this thread.
 */
import { maskWords } from "./bit_mask.ts";
import * as wasm from "./grammar/pkg/kedge_grammar.js";

let memory: WebAssembly.Memory | null = null;

/** Instantiates the module in this thread, once: about 20 ms. Everything else here needs it. */
export function loadGrammarModule(): void {
  if (memory !== null) return;
  const file = new URL("./grammar/pkg/kedge_grammar_bg.wasm", import.meta.url);
  memory = wasm.initSync({ module: Deno.readFileSync(file) }).memory;
}

/**
 * What a text must be. `json_schema`: JSON text of a schema; `regex`: a regular expression of
 * Rust's regex syntax over the whole text; `lark`: a grammar in llguidance's dialect of Lark.
 */
export interface Grammar {
  readonly kind: "json_schema" | "regex" | "lark";
  readonly source: string;
}

/** Marks a token as no text: grammars name it as `<name>`, and text never matches it. */
const SPECIAL_MARK = 0xff;

export class GrammarVocabulary {
  readonly inner: wasm.Vocabulary;
  readonly size: number;

  /**
   * `tokenBytes(id)`: the bytes of a token below `size`, none where it may never come. Ids for
   * which `isSpecial` come only where a grammar names them, and `endId` where it may end. `encode`:
   * the model's own tokenizer, by which forced text is cut; it must outlive this.
   */
  constructor(
    tokenBytes: (id: number) => Uint8Array,
    isSpecial: (id: number) => boolean,
    size: number,
    endId: number,
    encode: (text: string) => Uint32Array,
  ) {
    const tokens = Array.from({ length: size }, (_, id) => {
      const bytes = tokenBytes(id);
      return isSpecial(id) ? Uint8Array.of(SPECIAL_MARK, ...bytes) : bytes;
    });
    const all = new Uint8Array(tokens.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const token of tokens) {
      all.set(token, at);
      at += token.length;
    }
    const lengths = Uint32Array.from(tokens, ({ length }) => length);
    this.inner = new wasm.Vocabulary(all, lengths, endId, { encode });
    this.size = size;
  }
}

/** One text's way through a grammar. */
export class GrammarMatcher {
  readonly #matcher: wasm.Matcher;
  readonly #words: number;

  /** Throws for a grammar that is none, that asks for what is not supported, or is too large. */
  constructor(vocabulary: GrammarVocabulary, { kind, source }: Grammar) {
    this.#matcher = new wasm.Matcher(vocabulary.inner, kind, source);
    this.#words = maskWords(vocabulary.size);
  }

  /**
   * The bit mask of the tokens that may come next, see bit_mask.ts. A view that holds until the
   * next call of this module. Throws when it takes more work than a token may.
   */
  mask(): Uint32Array {
    const address = this.#matcher.mask_address();
    return new Uint32Array(memory!.buffer, address, this.#words);
  }

  /**
   * The tokens that must come next. Text is cut as the tokenizer cuts it, and what the tokens
   * behind it could change is left out. None where nothing is certain.
   */
  forced(): Uint32Array {
    return this.#matcher.forced();
  }

  /** Takes the next token. Throws when the mask does not have it. */
  consume(id: number): void {
    this.#matcher.consume(id);
  }

  /** Whether nothing but the end can follow. */
  get isOver(): boolean {
    return this.#matcher.is_over();
  }

  free(): void {
    this.#matcher.free();
  }
}
