/**
 * JSON of a model folder. JSON.parse alone would accept duplicate keys (the last wins, so two
 * readers may see two files) and any depth, so the text is scanned before it is parsed.
 */

import { MAX_JSON_DEPTH_LEVELS, MAX_JSON_VALUES } from "./limits.ts";
import { clean, quote, refuse } from "./wording.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * Parses UTF-8 JSON with unique keys, at most 32 levels deep and 1,000,000 values long.
 * `action` begins the ModelError's message: `read "config.json"`.
 */
export function parseJson(bytes: Uint8Array, action: string): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse(action, "JSON in UTF-8", "invalid UTF-8");
  }
  checkStructure(text, action);
  try {
    return JSON.parse(text);
  } catch (error) {
    return refuse(action, "JSON", text.trim() === "" ? "no text" : syntaxFault(error));
  }
}

/** As `parseJson`, and the value is an object. */
export function parseJsonObject(bytes: Uint8Array, action: string): Record<string, unknown> {
  const value = parseJson(bytes, action);
  if (!isObject(value)) {
    return refuse(action, "a JSON object", Array.isArray(value) ? "an array" : typeof value);
  }
  return value;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Refuses depth, length and duplicate keys. Other faults are left to JSON.parse. */
function checkStructure(text: string, action: string): void {
  /** Keys seen in each open object; null for an open array. */
  const open: (Set<string> | null)[] = [];
  let values = 1;
  let keyIsNext = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const end = stringEnd(text, at);
      if (keyIsNext) addKey(open.at(-1)!, text.slice(at, end + 1), action);
      keyIsNext = false;
      at = end;
    } else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      open.push(code === OPEN_BRACE ? new Set() : null);
      keyIsNext = code === OPEN_BRACE;
      values++;
      if (open.length > MAX_JSON_DEPTH_LEVELS) {
        refuse(action, `at most ${MAX_JSON_DEPTH_LEVELS} levels of JSON`, "more");
      }
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      open.pop();
      keyIsNext = false;
    } else if (code === COMMA) {
      keyIsNext = open.length > 0 && open.at(-1) !== null;
      values++;
    }
    if (values > MAX_JSON_VALUES) {
      refuse(action, `at most ${MAX_JSON_VALUES} JSON values`, "more");
    }
  }
}

/** Index of the quote that ends the string which begins at `start`, or of the text's end. */
function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) return at;
    if (code === BACKSLASH) at++;
  }
  return text.length;
}

/** `literal` includes its quotes and escapes: two spellings of one key are the same key. */
function addKey(keys: Set<string>, literal: string, action: string): void {
  let key = literal.slice(1, -1);
  if (key.includes("\\")) {
    try {
      key = JSON.parse(literal);
    } catch {
      return;
    }
  }
  if (keys.has(key)) refuse(action, `key ${quote(key)} once`, "it twice");
  keys.add(key);
}

/** What JSON.parse found, without the text it quotes. */
function syntaxFault(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const place = /at position \d+ \(line \d+ column \d+\)/.exec(message);
  const fault = message.replace(/,? ?(\.\.\.)?".*$/su, "").replace(/ in JSON at position.*$/su, "");
  return clean(place === null ? fault || message : `${fault} ${place[0]}`);
}
