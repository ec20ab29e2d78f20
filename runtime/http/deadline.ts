/**
 * A time limit that is set and lifted with every token: its timer runs on and looks at the limit
 * when it ends, as making and clearing one each time costs more than a token's text.
 */
export class Deadline {
  readonly #milliseconds: number;
  readonly #onPassed: () => void;
  #at = Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(milliseconds: number, onPassed: () => void) {
    this.#milliseconds = milliseconds;
    this.#onPassed = onPassed;
  }

  /** `onPassed` is called this long from now, unless the limit is lifted or set anew before. */
  set(): void {
    this.#at = performance.now() + this.#milliseconds;
    if (this.#timer === undefined) this.#wait(this.#milliseconds);
  }

  get isSet(): boolean {
    return this.#at !== Infinity;
  }

  lift(): void {
    this.#at = Infinity;
  }

  /** Lifts it and ends the timer; it may be set again. */
  close(): void {
    this.lift();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(milliseconds: number): void {
    this.#timer = setTimeout(() => this.#look(), milliseconds);
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#at === Infinity) return;
    const left = this.#at - performance.now();
    if (left > 0) return this.#wait(Math.ceil(left));
    this.lift();
    this.#onPassed();
  }
}
