/** Segments -> token ids. Special tokens come from trusted segments only. */
import { ModelError } from "../errors.ts";
import { ENCODE_SLICE_CHARACTERS, ENCODE_SLICE_MS } from "../limits.ts";
import type { Segment } from "./template.ts";
import type { Tokenizer } from "../../wasm/text.ts";

/**
 * Encodes the segments one after the other, giving way to other work every few milliseconds.
 * Throws ModelError when the tokenizer lacks a marker.
 */
export async function encodeSegments(
  tokenizer: Tokenizer,
  segments: readonly Segment[],
): Promise<Uint32Array> {
  const clock = new SliceClock();
  const parts: Uint32Array[] = [];
  for (const segment of segments) {
    parts.push(
      segment.trusted
        ? Uint32Array.of(markerId(tokenizer, segment.text))
        : await encodeSlices(tokenizer, segment.text, false, clock),
    );
  }
  return concatenate(parts);
}

/** Encodes one text; with `allowSpecial`, special strings in it become special tokens. */
export function encodeText(
  tokenizer: Tokenizer,
  text: string,
  allowSpecial = false,
): Promise<Uint32Array> {
  return encodeSlices(tokenizer, text, allowSpecial, new SliceClock());
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
  clock: SliceClock,
): Promise<Uint32Array> {
  const encoding = tokenizer.startEncoding(text, allowSpecial);
  try {
    // The start copies the text: milliseconds by itself when it is megabytes.
    await clock.giveWay();
    while (!encoding.step(ENCODE_SLICE_CHARACTERS)) await clock.giveWay();
    await clock.giveWay();
    return encoding.take();
  } finally {
    encoding.free();
  }
}

/** Knows how long the thread has been held, over as many short texts as it takes. */
class SliceClock {
  #start = performance.now();

  /** Lets timers and sockets run when the slice is used up. */
  async giveWay(): Promise<void> {
    if (performance.now() - this.#start < ENCODE_SLICE_MS) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    this.#start = performance.now();
  }
}

function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  const ids = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    ids.set(part, offset);
    offset += part.length;
  }
  return ids;
}
