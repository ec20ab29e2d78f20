/** Segments -> token ids. Special tokens come from trusted segments only. */
import { ModelError } from "../errors.ts";
import { ENCODE_SLICE_CHARACTERS } from "../limits.ts";
import { Slices } from "../slices.ts";
import type { Segment } from "./template.ts";
import type { Tokenizer } from "../../wasm/text.ts";

/**
 * Encodes the segments one after the other, giving way to other work every few milliseconds and
 * ending when the slices' signal fires.
 * Throws ModelError when the tokenizer lacks a marker.
 */
export async function encodeSegments(
  tokenizer: Tokenizer,
  segments: readonly Segment[],
  slices = new Slices(),
): Promise<Uint32Array> {
  const ids = new IdList();
  for (const { text, trusted } of segments) {
    if (trusted) ids.push(markerId(tokenizer, text));
    else ids.append(await encodeSlices(tokenizer, text, false, slices));
  }
  return ids.take();
}

/** Encodes one text; with `allowSpecial`, special strings in it become special tokens. */
export function encodeText(
  tokenizer: Tokenizer,
  text: string,
  allowSpecial = false,
  slices = new Slices(),
): Promise<Uint32Array> {
  return encodeSlices(tokenizer, text, allowSpecial, slices);
}

function markerId(tokenizer: Tokenizer, marker: string): number {
  const id = tokenizer.specialId(marker);
  if (id === null) {
    throw new ModelError(
      `render chat: wanted the special token "${marker}" in the tokenizer, found none`,
    );
  }
  return id;
}

async function encodeSlices(
  tokenizer: Tokenizer,
  text: string,
  allowSpecial: boolean,
  slices: Slices,
): Promise<Uint32Array> {
  if (text.length <= ENCODE_SLICE_CHARACTERS) {
    await slices.giveWay();
    return tokenizer.encode(text, allowSpecial);
  }
  // The start and the end copy the whole text: milliseconds by themselves when it is megabytes.
  const isLong = text.length > LONG_CHARACTERS;
  if (isLong) await slices.turn();
  const encoding = tokenizer.startEncoding(text, allowSpecial);
  try {
    do await slices.giveWay(); while (!encoding.step(ENCODE_SLICE_CHARACTERS));
    if (isLong) await slices.turn();
    return encoding.take();
  } finally {
    encoding.free();
  }
}

/** Texts that take a millisecond or so to copy. */
const LONG_CHARACTERS = 256 * 1024;

/** One growing array: a conversation has tens of thousands of segments of a few ids. */
class IdList {
  #ids = new Uint32Array(1024);
  #length = 0;

  push(id: number): void {
    this.#reserve(1);
    this.#ids[this.#length++] = id;
  }

  append(ids: Uint32Array): void {
    this.#reserve(ids.length);
    this.#ids.set(ids, this.#length);
    this.#length += ids.length;
  }

  take(): Uint32Array {
    return this.#ids.slice(0, this.#length);
  }

  #reserve(more: number): void {
    const wanted = this.#length + more;
    if (wanted <= this.#ids.length) return;
    const larger = new Uint32Array(Math.max(wanted, 2 * this.#ids.length));
    larger.set(this.#ids);
    this.#ids = larger;
  }
}
