/** What the reading thread is told. */

export interface PieceRead {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

/** Piece i goes to slot i modulo their count, once that is empty. */
export interface ReadOrder {
  readonly reads: readonly PieceRead[];
  /** Shared memory. */
  readonly slots: readonly Uint8Array[];
  /** Shared: one of the states below for each slot. */
  readonly states: Int32Array;
}

export const READ_EMPTY = 0;
export const READ_FULL = 1;
export const READ_FAILED = 2;
