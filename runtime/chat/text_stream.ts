/** Token ids -> text that can be shown, up to a stop string. */
import { StreamDecoder, type Tokenizer } from "../../wasm/text.ts";
import { StopStrings } from "./stop_strings.ts";

export interface TextStreamOptions {
  /** Leaves out tokens that are marked special. */
  readonly skipSpecial: boolean;
  readonly stops: readonly string[];
}

export class TextStream {
  readonly #decoder: StreamDecoder;
  readonly #stops: StopStrings;
  #characters = 0;

  constructor(tokenizer: Tokenizer, options: TextStreamOptions) {
    this.#decoder = new StreamDecoder(tokenizer, options.skipSpecial);
    this.#stops = new StopStrings(options.stops);
  }

  /** The stop string that ended the text, or null. */
  get stopped(): string | null {
    return this.#stops.found;
  }

  /** Code points decoded so far, whether delivered, held back or cut off by a stop string. */
  get characters(): number {
    return this.#characters;
  }

  /** Takes one token; returns the text that it makes certain, often empty. */
  push(id: number): string {
    return this.#take(this.#decoder.push(id));
  }

  /** Takes text that did not come as tokens; the same as push() otherwise. */
  pushText(text: string): string {
    return this.#take(this.#decoder.flush()) + this.#take(text);
  }

  /** The end of the ids: returns the text held back, incomplete characters as U+FFFD. */
  end(): string {
    return this.#take(this.#decoder.flush()) + this.#stops.flush();
  }

  free(): void {
    this.#decoder.free();
  }

  #take(text: string): string {
    this.#characters += countCodePoints(text);
    return this.#stops.push(text);
  }
}

/** Length of a string as Python counts it. */
export function countCodePoints(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; count++) at += text.codePointAt(at)! > 0xffff ? 2 : 1;
  return count;
}
