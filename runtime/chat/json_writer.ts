/** JSON text in steps, so that a large value does not hold the thread. */

export interface JsonStyle {
  /** Between items. */
  readonly comma: string;
  /** Between a key and its value. */
  readonly colon: string;
  /** Puts the keys of an object in order, in place. */
  readonly order: (keys: string[]) => string[];
}

/** As JSON.stringify writes. */
export const COMPACT_JSON: JsonStyle = { comma: ",", colon: ":", order: (keys) => keys };

/** A list or an object that is open at the place reached. */
interface Frame {
  /** An object's keys; null for a list. */
  readonly keys: readonly string[] | null;
  readonly values: ArrayLike<unknown> | Readonly<Record<string, unknown>>;
  readonly length: number;
  /** Items written. */
  at: number;
}

/** Writes plain data, typed lists of ids among it; of other objects their own fields. */
export class JsonWriter {
  readonly #style: JsonStyle;
  readonly #levels: number;
  readonly #frames: Frame[] = [];
  #parts: string[] = [];
  #text = "";

  /** `levels`: values nested deeper are small, and written at once by JSON.stringify. */
  constructor(value: unknown, style: JsonStyle = COMPACT_JSON, levels = Infinity) {
    this.#style = style;
    this.#levels = levels;
    this.#begin(value);
  }

  /** Characters written and not taken. */
  get length(): number {
    return this.#text.length;
  }

  /** What was written since the last call. */
  take(): string {
    const text = this.#text;
    this.#text = "";
    return text;
  }

  /** Writes about `values` values more; true when all are written. */
  step(values: number): boolean {
    for (let count = 0; count < values && this.#frames.length > 0; count++) this.#next();
    this.#text += this.#parts.join("");
    this.#parts = [];
    return this.#frames.length === 0;
  }

  #next(): void {
    const frame = this.#frames.at(-1)!;
    const { keys, values, at, length } = frame;
    if (at === length) {
      this.#parts.push(keys === null ? "]" : "}");
      this.#frames.pop();
      return;
    }
    frame.at++;
    if (at > 0) this.#parts.push(this.#style.comma);
    if (keys === null) return this.#begin((values as ArrayLike<unknown>)[at]);
    const key = keys[at]!;
    this.#parts.push(JSON.stringify(key), this.#style.colon);
    this.#begin((values as Readonly<Record<string, unknown>>)[key]);
  }

  /** Writes a value that is not to be taken apart; opens any other. */
  #begin(value: unknown): void {
    if (typeof value !== "object" || value === null || this.#frames.length >= this.#levels) {
      this.#parts.push(JSON.stringify(value) ?? "null");
    } else if (Array.isArray(value) || value instanceof Uint32Array) {
      this.#parts.push("[");
      this.#frames.push({ keys: null, values: value, length: value.length, at: 0 });
    } else {
      const values = value as Readonly<Record<string, unknown>>;
      const keys = this.#style.order(
        Object.keys(values).filter((key) => values[key] !== undefined),
      );
      this.#parts.push("{");
      this.#frames.push({ keys, values, length: keys.length, at: 0 });
    }
  }
}
