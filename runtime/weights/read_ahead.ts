/**
 * Reads pieces of files in a thread of its own, in an order that is known beforehand, so that the
 * loader uploads one piece while the next ones are read.
 */

import { LOAD_PIECE_BYTES, READ_AHEAD_MS } from "../limits.ts";
import { type PieceRead, READ_EMPTY, READ_FULL, type ReadOrder } from "./read_protocol.ts";

/** Pieces that may lie read. */
const SLOTS = 4;

export class ReadAhead {
  readonly #worker: Worker;
  readonly #states = new Int32Array(new SharedArrayBuffer(4 * SLOTS));
  readonly #slots: readonly Uint8Array[];
  readonly #reads: readonly PieceRead[];
  #taken = 0;

  /** Bytes of all slots. */
  static readonly bufferBytes = SLOTS * LOAD_PIECE_BYTES;

  constructor(reads: readonly PieceRead[]) {
    this.#reads = reads;
    this.#slots = Array.from(
      { length: SLOTS },
      () => new Uint8Array(new SharedArrayBuffer(LOAD_PIECE_BYTES)),
    );
    const url = new URL("./read_worker.ts", import.meta.url);
    this.#worker = new Worker(url, { type: "module", name: "reader" });
    const order: ReadOrder = { reads, slots: this.#slots, states: this.#states };
    this.#worker.postMessage(order);
  }

  /**
   * The next piece, valid until the next call; null when the thread could not read it, and then
   * there are no more. Throws when another one is asked for than the order says.
   */
  next(path: string, offset: number, length: number): Uint8Array | null {
    const read = this.#reads[this.#taken];
    if (read?.path !== path || read.offset !== offset || read.length !== length) {
      throw new Error(`read ahead: wanted ${length} bytes at ${offset}, found another order`);
    }
    if (this.#taken > 0) this.#release((this.#taken - 1) % SLOTS);
    const slot = this.#taken++ % SLOTS;
    Atomics.wait(this.#states, slot, READ_EMPTY, READ_AHEAD_MS);
    if (Atomics.load(this.#states, slot) !== READ_FULL) return null;
    return this.#slots[slot]!.subarray(0, length);
  }

  #release(slot: number): void {
    Atomics.store(this.#states, slot, READ_EMPTY);
    Atomics.notify(this.#states, slot);
  }

  close(): void {
    this.#worker.terminate();
  }
}
