/** Reads a request's JSON body within bounds. */
import { RequestError, TimeoutError, TooLargeError } from "../errors.ts";
import {
  BODY_READ_MS,
  BODY_SLICE_BYTES,
  MAX_BODY_BYTES,
  MAX_BODY_DEPTH_LEVELS,
  MAX_BODY_FIELDS,
} from "../limits.ts";
import { Slices } from "../slices.ts";
import { EncodingError } from "./errors.ts";

/** The fields of a request. Read them by name only. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Throws TimeoutError (408) for a body that does not arrive in time, TooLargeError (413),
 * EncodingError (415), or RequestError (400) for what is not one JSON object of bounded depth in
 * UTF-8. The content type is not looked at: many clients send none.
 */
export async function readJsonObject(
  request: Request,
  readMs = BODY_READ_MS,
  slices = new Slices(),
): Promise<JsonObject> {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.trim().toLowerCase() !== "identity") {
    throw new EncodingError('read request body: wanted no "content-encoding", found one');
  }
  const text = await readText(request, readMs, slices);
  // The parser takes a whole text or nothing: up to 10 ms for a megabyte of small values.
  if (text.length > BODY_SLICE_BYTES) await slices.turn();
  const value = parse(text);
  await slices.giveWay();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const found = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
    throw new RequestError(`read request body: wanted a JSON object, found ${found}`);
  }
  return value as JsonObject;
}

/** Throws TooLargeError for a body that says itself that it is too large. Returns its bytes. */
export function checkDeclaredSize({ headers }: Request): number {
  const declared = Number(headers.get("content-length") ?? 0) || 0;
  if (declared > MAX_BODY_BYTES) throw tooLarge(`${declared}`);
  return Math.max(declared, 0);
}

/** The body as text, decoded and looked through as it arrives. */
async function readText(request: Request, readMs: number, slices: Slices): Promise<string> {
  checkDeclaredSize(request);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const structure = new StructureCheck();
  let text = "";
  let size = 0;
  for await (const chunk of chunksInTime(request, readMs)) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw tooLarge("more");
    for (let at = 0; at < chunk.length; at += BODY_SLICE_BYTES) {
      const slice = chunk.subarray(at, at + BODY_SLICE_BYTES);
      structure.push(slice);
      text += decode(decoder, slice);
      await slices.giveWay();
    }
  }
  return text + decode(decoder, null);
}

/** The body as it arrives, for `readMs` in all. */
async function* chunksInTime(request: Request, readMs: number): AsyncGenerator<Uint8Array> {
  if (request.body === null) return;
  const reader = request.body.getReader();
  // Ends a read that waits. A body that broke off has nothing left to cancel.
  const stop = () => void reader.cancel().catch(() => {});
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stop();
  }, readMs);
  try {
    for (let read = await next(reader); !read.done; read = await next(reader)) yield read.value;
  } finally {
    clearTimeout(timer);
    stop();
  }
  if (late) throw new TimeoutError(`read request body: wanted its end in ${readMs} ms, found none`);
}

/** Connections break: that is no fault of the server. */
async function next(reader: ReadableStreamDefaultReader<Uint8Array>) {
  try {
    return await reader.read();
  } catch {
    throw new RequestError("read request body: wanted its end, found a connection that broke off");
  }
}

function tooLarge(found: string): TooLargeError {
  return new TooLargeError(
    `read request body: wanted at most ${MAX_BODY_BYTES} bytes, found ${found}`,
  );
}

const QUOTE = 0x22, BACKSLASH = 0x5c, COLON = 0x3a;
const OPEN_BRACKET = 0x5b, CLOSE_BRACKET = 0x5d, OPEN_BRACE = 0x7b, CLOSE_BRACE = 0x7d;

/**
 * Deep nesting and fields by the hundred thousand cost the parser, and what walks its result, far
 * more than their bytes suggest.
 */
class StructureCheck {
  #depth = 0;
  #fields = 0;
  #inString = false;
  #isEscaped = false;

  /** Takes more of the text; throws RequestError when it holds too much. */
  push(bytes: Uint8Array): void {
    let depth = this.#depth, inString = this.#inString, isEscaped = this.#isEscaped;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (inString) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) inString = false;
      } else if (byte === QUOTE) {
        inString = true;
      } else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
        if (++depth > MAX_BODY_DEPTH_LEVELS) {
          throw new RequestError(
            `read request body: wanted JSON of at most ${MAX_BODY_DEPTH_LEVELS} levels, found more`,
          );
        }
      } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) {
        depth--;
      } else if (byte === COLON && ++this.#fields > MAX_BODY_FIELDS) {
        throw new RequestError(
          `read request body: wanted JSON of at most ${MAX_BODY_FIELDS} fields, found more`,
        );
      }
    }
    this.#depth = depth;
    this.#inString = inString;
    this.#isEscaped = isEscaped;
  }
}

/** null: there are no more bytes. */
function decode(decoder: TextDecoder, bytes: Uint8Array | null): string {
  try {
    return bytes === null ? decoder.decode() : decoder.decode(bytes, { stream: true });
  } catch {
    throw new RequestError("read request body: wanted UTF-8, found other bytes");
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    const found = text.trim() === "" ? "an empty body" : "text that is not JSON";
    throw new RequestError(`read request body: wanted JSON, found ${found}`);
  }
}
