/** Fixed sets of slots and pages: taken and given back, never allocated while serving. */

export class Pool {
  readonly #free: number[];
  readonly #taken = new Set<number>();

  /** Numbers 0 .. size - 1. */
  constructor(readonly name: string, readonly size: number) {
    this.#free = Array.from({ length: size }, (_, index) => size - 1 - index);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** A free number, or null when all are taken. */
  take(): number | null {
    const number = this.#free.pop();
    if (number === undefined) return null;
    this.#taken.add(number);
    return number;
  }

  /** Gives one back. Throws when it was not taken: two owners would corrupt each other's state. */
  give(number: number): void {
    if (!this.#taken.delete(number)) {
      throw new Error(`give back ${this.name} ${number}: wanted a taken one, found a free one`);
    }
    this.#free.push(number);
  }
}
