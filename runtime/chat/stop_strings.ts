/**
 * Finds stop strings in text that arrives in pieces.
 *
 * The match that ends first wins; of several that end together, the longest. So the result does not
 * depend on how the text was cut, and generation ends as soon as it can. Text is held back only
 * while it may be the beginning of a stop string: always the shortest such suffix.
 */

/** One stop string with its failure table (Knuth, Morris, Pratt 1977). */
interface Automaton {
  readonly stop: string;
  /** failures[n]: length of the longest proper prefix of the first n units that also ends them. */
  readonly failures: Uint16Array;
  /** How many units of the stop string the text so far ends with. */
  matched: number;
}

export class StopStrings {
  readonly #automata: Automaton[];
  #held = "";
  #found: string | null = null;

  /** `stops`: well-formed strings of 1 to 65,535 UTF-16 units; may be empty. */
  constructor(stops: readonly string[]) {
    this.#automata = stops.map((stop) => ({ stop, failures: failureTable(stop), matched: 0 }));
  }

  /** The stop string that ended the text, or null. */
  get found(): string | null {
    return this.#found;
  }

  /** Takes more text; returns what can be delivered now. Nothing after a match. */
  push(text: string): string {
    if (this.#found !== null) return "";
    if (this.#automata.length === 0) return text;
    const all = this.#held + text;
    for (let at = this.#held.length; at < all.length; at++) {
      const stop = this.#advance(all.charCodeAt(at));
      if (stop !== null) {
        this.#found = stop;
        this.#held = "";
        return all.slice(0, at + 1 - stop.length);
      }
    }
    const hold = this.#automata.reduce((most, each) => Math.max(most, each.matched), 0);
    this.#held = all.slice(all.length - hold);
    return all.slice(0, all.length - hold);
  }

  /** The end of the text: returns what was held back. Text that follows is a new one. */
  flush(): string {
    for (const each of this.#automata) each.matched = 0;
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Moves every automaton over one unit; returns the longest stop string that ends here. */
  #advance(unit: number): string | null {
    let longest: string | null = null;
    for (const each of this.#automata) {
      while (each.matched > 0 && each.stop.charCodeAt(each.matched) !== unit) {
        each.matched = each.failures[each.matched]!;
      }
      if (each.stop.charCodeAt(each.matched) === unit) each.matched++;
      if (each.matched === each.stop.length && each.stop.length > (longest?.length ?? 0)) {
        longest = each.stop;
      }
    }
    return longest;
  }
}

function failureTable(stop: string): Uint16Array {
  const failures = new Uint16Array(stop.length + 1);
  let matched = 0;
  for (let at = 1; at < stop.length; at++) {
    while (matched > 0 && stop.charCodeAt(matched) !== stop.charCodeAt(at)) {
      matched = failures[matched]!;
    }
    if (stop.charCodeAt(matched) === stop.charCodeAt(at)) matched++;
    failures[at + 1] = matched;
  }
  return failures;
}
