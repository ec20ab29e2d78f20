/** Bit masks over a vocabulary: bit i % 32 of word i / 32 tells whether token i may come. */

/** Words of a mask over `size` tokens. */
export function maskWords(size: number): number {
  return Math.ceil(size / 32);
}

/** Whether token `id` may come under a mask. */
export function allows(mask: Uint32Array, id: number): boolean {
  return (mask[id >>> 5]! >>> (id & 31) & 1) !== 0;
}

/** Sets the logits of all tokens that may not come to -Infinity. */
export function maskLogits(logits: Float32Array, mask: Uint32Array): void {
  for (let word = 0; word < mask.length; word++) {
    const bits = mask[word]!;
    const start = 32 * word;
    if (bits === 0) logits.fill(-Infinity, start, start + 32);
    else if (bits !== 0xffff_ffff) {
      const end = Math.min(start + 32, logits.length);
      for (let id = start; id < end; id++) {
        if ((bits >>> (id & 31) & 1) === 0) logits[id] = -Infinity;
      }
    }
  }
}
