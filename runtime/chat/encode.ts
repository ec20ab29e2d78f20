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
  const parts: Uint32Array[] = [];
  for (const segment of segments) {
    parts.push(
      segment.trusted
        ? Uint32Array.of(markerId(tokenizer, segment.text))
        : await encodeSlices(tokenizer, segment.text, false, slices),
    );
  }
  return concatenate(parts);
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

function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  const ids = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    ids.set(part, offset);
    offset += part.length;
  }
  return ids;
}
