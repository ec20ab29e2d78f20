/** Reads a request's JSON body within bounds. */
import { RequestError, TooLargeError } from "../errors.ts";
import { MAX_BODY_BYTES, MAX_BODY_DEPTH_LEVELS } from "../limits.ts";
import { EncodingError } from "./errors.ts";

/** The fields of a request. Read them by name only. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Throws TooLargeError (413), EncodingError (415), or RequestError (400) for what is not one JSON
 * object of bounded depth in UTF-8. The content type is not looked at: many clients send none.
 */
export async function readJsonObject(request: Request): Promise<JsonObject> {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.trim().toLowerCase() !== "identity") {
    throw new EncodingError('read request body: wanted no "content-encoding", found one');
  }
  const bytes = await readBytes(request);
  checkDepth(bytes);
  const value = parse(bytes);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const found = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
    throw new RequestError(`read request body: wanted a JSON object, found ${found}`);
  }
  return value as JsonObject;
}

async function readBytes(request: Request): Promise<Uint8Array> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > MAX_BODY_BYTES) throw tooLarge(`${declared}`);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw tooLarge("more");
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}

function tooLarge(found: string): TooLargeError {
  return new TooLargeError(
    `read request body: wanted at most ${MAX_BODY_BYTES} bytes, found ${found}`,
  );
}

const QUOTE = 0x22, BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b, CLOSE_BRACKET = 0x5d, OPEN_BRACE = 0x7b, CLOSE_BRACE = 0x7d;

/** Deep nesting costs the parser, and what walks its result, far more than its bytes suggest. */
function checkDepth(bytes: Uint8Array): void {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (inString) {
      if (byte === BACKSLASH) at++;
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
    }
  }
}

function parse(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new RequestError("read request body: wanted UTF-8, found other bytes");
  }
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    const found = text.trim() === "" ? "an empty body" : "text that is not JSON";
    throw new RequestError(`read request body: wanted JSON, found ${found}`);
  }
}
