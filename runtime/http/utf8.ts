/** Text of a stream as bytes. */

/** Bytes that writes share: an array of its own takes each three times as long as its encoding. */
const SHARED_BYTES = 64 * 1024;
/** Most bytes of a UTF-16 unit. */
const UNIT_BYTES = 3;

const encoder = new TextEncoder();
let shared = new Uint8Array(SHARED_BYTES);
let used = 0;

/** The text in UTF-8, in a part of an array whose other parts are other writes': read only. */
export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  const room = text.length * UNIT_BYTES;
  if (room > SHARED_BYTES / 4) return encoder.encode(text);
  if (room > shared.length - used) {
    shared = new Uint8Array(SHARED_BYTES);
    used = 0;
  }
  const { written } = encoder.encodeInto(text, shared.subarray(used));
  used += written;
  return shared.subarray(used - written, used);
}
