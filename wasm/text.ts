/**
 * Text in and out of tokens, sampling and expert bookkeeping, by the Rust crate in `text/`.
 *
 * Errors are plain `Error`s whose message says action, wanted and found.
 */
import * as wasm from "./text/pkg/kedge_text.js";
import { checkInteger, textMemory } from "./text_module.ts";

export { loadTextModule } from "./text_module.ts";
export { type SampleParameters, Sampler } from "./text_sampler.ts";

export interface SpecialToken {
  readonly id: number;
  readonly text: string;
  /** tokenizer_config's `special`: left out when decoding with skipSpecial. */
  readonly special: boolean;
}

/** Longest text in UTF-16 units whose encoding uses the tokenizer's own, kept buffers. */
const keptLengthMax = 1 << 16;
const utf8 = new TextEncoder();

/** Starts `encoding` on `text`; a lone surrogate becomes U+FFFD. */
function begin(encoding: wasm.Encoding, text: string, allowSpecial: boolean): void {
  if (text.length > keptLengthMax) {
    const bytes = utf8.encode(text);
    encoding.reserve(bytes.length);
    new Uint8Array(textMemory(), encoding.text_address(), bytes.length).set(bytes);
    encoding.begin(bytes.length, allowSpecial);
    return;
  }
  // One UTF-16 unit is at most three bytes of UTF-8.
  const room = text.length * 3;
  encoding.reserve(room);
  const { written } = utf8.encodeInto(
    text,
    new Uint8Array(textMemory(), encoding.text_address(), room),
  );
  encoding.begin(written, allowSpecial);
}

function takeIds(encoding: wasm.Encoding): Uint32Array {
  return new Uint32Array(textMemory(), encoding.ids_address(), encoding.ids_length()).slice();
}

/** The encoding of one long text, in steps. */
export class Encoding {
  #encoding: wasm.Encoding;
  #done = false;

  constructor(encoding: wasm.Encoding) {
    this.#encoding = encoding;
  }

  /** Encodes at most this many characters more (at least one piece); true when all are done. */
  step(maxCharacters: number): boolean {
    checkInteger("step encoding", maxCharacters, 2 ** 31);
    // Counted in UTF-8 bytes, of which a character has at least one.
    return this.#done = this.#encoding.step(Math.max(maxCharacters, 1));
  }

  /** The ids, once step() has returned true. */
  take(): Uint32Array {
    if (!this.#done) throw new Error("take ids: wanted step() to have returned true");
    return takeIds(this.#encoding);
  }

  free(): void {
    this.#encoding.free();
  }
}

/**
 * Byte-pair tokenizer with Kimi's split rule.
 *
 * Ids are the ranks of the vocabulary file, then slots up to the vocabulary size. A slot that has
 * no
 * special token is called `<|reserved_token_{id}|>` and counts as marked special.
 */
export class Tokenizer {
  /** Tokens in the vocabulary file; ids from here on are slots for special tokens. */
  readonly rankCount: number;
  readonly vocabularySize: number;
  readonly inner: wasm.Tokenizer;
  #kept: wasm.Encoding;

  /**
   * `tiktokenModel` holds lines `base64 rank`, the ranks 0, 1, 2 ... in any order, with all 256
   * single bytes among the tokens. Throws, naming line or token, for anything else, for ranks not
   * below the vocabulary size, and for special tokens outside rankCount <= id < vocabularySize or
   * twice the same.
   */
  constructor(
    tiktokenModel: Uint8Array,
    specials: readonly SpecialToken[],
    vocabularySize: number,
  ) {
    textMemory();
    checkInteger("make tokenizer: vocabulary size", vocabularySize, 2 ** 31);
    for (const { id, text } of specials) {
      checkInteger(`add special token ${JSON.stringify(text)}`, id, vocabularySize);
    }
    this.inner = new wasm.Tokenizer(
      tiktokenModel,
      Uint32Array.from(specials, (token) => token.id),
      specials.map((token) => token.text),
      Uint8Array.from(specials, (token) => token.special ? 1 : 0),
      vocabularySize,
    );
    this.vocabularySize = vocabularySize;
    this.rankCount = this.inner.rank_count();
    this.#kept = this.inner.start_encoding(0);
  }

  /** With allowSpecial, texts of special tokens become their ids; else they are text like any. */
  encode(text: string, allowSpecial = false): Uint32Array {
    const isShort = text.length <= keptLengthMax;
    const encoding = isShort ? this.#kept : this.inner.start_encoding(0);
    begin(encoding, text, allowSpecial);
    encoding.step(2 ** 32 - 1);
    const ids = takeIds(encoding);
    if (!isShort) encoding.free();
    return ids;
  }

  /** The same ids in steps, so that a thread can do other things in between; free() it. */
  startEncoding(text: string, allowSpecial = false): Encoding {
    const encoding = this.inner.start_encoding(0);
    begin(encoding, text, allowSpecial);
    return new Encoding(encoding);
  }

  /** Bytes of a token, those of its text for a slot. Throws for an id outside the vocabulary. */
  tokenBytes(id: number): Uint8Array {
    checkInteger("decode token", id, this.vocabularySize);
    return this.inner.token_bytes(id);
  }

  /** All tokens' bytes as text, with U+FFFD for what is not UTF-8. skipSpecial drops slots that are
   * marked special. Throws for an id outside the vocabulary. */
  decode(ids: Uint32Array | readonly number[], skipSpecial = false): string {
    if (!(ids instanceof Uint32Array)) {
      for (const id of ids) checkInteger("decode token", id, this.vocabularySize);
      ids = Uint32Array.from(ids);
    }
    return this.inner.decode(ids, skipSpecial);
  }

  /** Id of the slot with this text, or null. */
  specialId(text: string): number | null {
    return this.inner.special_id(text) ?? null;
  }

  /** Whether decoding with skipSpecial drops the token. */
  isSpecial(id: number): boolean {
    return Number.isInteger(id) && id >= 0 && id < this.vocabularySize &&
      this.inner.is_skipped(id);
  }

  free(): void {
    this.#kept.free();
    this.inner.free();
  }
}

/**
 * Text out of tokens as they come: what push() and flush() return, joined, is what
 * Tokenizer.decode() gives for all of them.
 */
export class StreamDecoder {
  #tokenizer: Tokenizer;
  #decoding: wasm.Decoding;

  constructor(tokenizer: Tokenizer, skipSpecial: boolean) {
    this.#tokenizer = tokenizer;
    this.#decoding = tokenizer.inner.start_decoding(skipSpecial);
  }

  /** Text that is complete with this token; holds back the start of a character (<= 3 bytes). */
  push(id: number): string {
    checkInteger("decode token", id, this.#tokenizer.vocabularySize);
    return this.#decoding.push(id);
  }

  /** What was held back, as U+FFFD; the decoder is then as new. */
  flush(): string {
    return this.#decoding.flush();
  }

  free(): void {
    this.#decoding.free();
  }
}

/** Mixture-of-experts bookkeeping: the reference for the devices' routing, and use counters. */
export class Router {
  #router: wasm.Router;
  #expertCount: number;

  /** Throws unless 1 <= expertsPerToken <= expertCount. */
  constructor(expertCount: number, expertsPerToken: number) {
    textMemory();
    checkInteger("make router: expert count", expertCount, 2 ** 31);
    checkInteger("make router: experts a token", expertsPerToken, 2 ** 31);
    this.#expertCount = expertCount;
    this.#router = new wasm.Router(expertCount, expertsPerToken);
  }

  /**
   * The experts with the largest score + bias (of equals the lower index), best first, and their
   * weights: the scores without bias, divided by (their sum + 1e-20) if `renormalize`, times scale.
   *
   * scores: [rows, experts] after the sigmoid; bias: [experts]; results: [rows, expertsPerToken].
   */
  select(
    scores: Float32Array,
    bias: Float32Array,
    renormalize: boolean,
    scale: number,
  ): { experts: Uint32Array; weights: Float32Array } {
    const selection = this.#router.select(scores, bias, renormalize, scale);
    const result = { experts: selection.take_experts(), weights: selection.take_weights() };
    selection.free();
    return result;
  }

  /**
   * Groups choices by expert and adds them to the use counters. experts: [rows, expertsPerToken];
   * counts: [experts]; offsets: [experts + 1]; order: indices into `experts`, sorted by expert,
   * then
   * by index.
   */
  group(
    experts: Uint32Array,
  ): { counts: Uint32Array; offsets: Uint32Array; order: Uint32Array } {
    const all = this.#router.group(experts);
    const orderStart = 2 * this.#expertCount + 1;
    return {
      counts: all.slice(0, this.#expertCount),
      offsets: all.slice(this.#expertCount, orderStart),
      order: all.slice(orderStart),
    };
  }

  /** Times that each expert was grouped since the last call. */
  takeUse(): Uint32Array {
    return this.#router.take_uses();
  }

  free(): void {
    this.#router.free();
  }
}

/**
 * The pieces that the split rule makes of a text, before merging; for tests and for the curious.
 */
export function splitPieces(text: string): string[] {
  textMemory();
  const bytes = utf8.encode(text);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let start = 0;
  return Array.from(wasm.piece_ends(bytes), (end) => {
    const piece = decoder.decode(bytes.subarray(start, end));
    start = end;
    return piece;
  });
}
