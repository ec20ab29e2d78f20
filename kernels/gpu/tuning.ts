/**
 * The shapes of workgroups that are worth varying, one set for each class of adapters. Kernels get
 * them as constants when they are compiled: nothing in them asks which adapter it is.
 *
 * Results are the same bits for any number of rows under one tuning; under another the order of
 * some sums differs.
 */

/** Registers and threads of a tile of an integer product, along the rows of x and the weights. */
export interface QTile {
  /** Products a thread: powers of two, at most 8. */
  readonly xRegisters: number;
  readonly wRegisters: number;
  /** Threads a workgroup: powers of two, as many as the longer side of the tile has rows. */
  readonly xThreads: number;
  readonly wThreads: number;
}

export interface Tuning {
  /** The first projections of a mixer and the head: workgroups of 128 threads. */
  readonly projection: {
    /** Threads that share a row of weights: 8, 16 or 32; at least batch rows x steps x `rows`. */
    readonly lanes: number;
    /** Rows of weights a thread: a power of two. */
    readonly rows: number;
  };
  /** The projections that end a mixer or a dense block: 32 rows of weights a workgroup. */
  readonly out: {
    /** Threads that share a row of weights: 8, 16 or 32; at least batch rows x steps. */
    readonly lanes: number;
  };
  /** The first half of a feed-forward block. */
  readonly up: {
    /** Threads that share a channel, of one row and of several: 8, 16 or 32. */
    readonly lanes: number;
    /** Channels of a workgroup, for one row: a multiple of 32. */
    readonly tile: number;
    /** Groups of 32 columns whose loads a thread has under way, for one row: 1 to 16. */
    readonly chunk: number;
  };
  /** The same for several rows, which go by experts. */
  readonly experts: {
    /** Rows of one expert that a workgroup takes: 1 to 16. */
    readonly rows: number;
    /** Channels of a workgroup: a multiple of 32. */
    readonly tile: number;
    /** Channels a thread: a power of two that divides up lanes, which divide `rows` x `steps`. */
    readonly steps: number;
  };
  /** The second half of a mixture of experts: 32 rows of weights a workgroup, 8 threads each. */
  readonly down: {
    /** Parts of a workgroup that share the experts of a row: 1 to 4. */
    readonly parts: number;
  };
  readonly attention: {
    /** Heads of a workgroup, 8 threads each: a multiple of 8. */
    readonly heads: number;
    /** Positions that it works on at a time: 4 or 8. */
    readonly positions: number;
  };
  /** Projections of several rows of activations. */
  readonly batch: {
    /** Rows that a workgroup takes, reading weights once: 1, 2, 4 or 8. */
    readonly rows: number;
    /** Times as many rows of weights a thread takes as for one row: 1, 2 or 4. */
    readonly steps: number;
  };
  /** Integer products of prompts. */
  readonly prompt: {
    /** Smallest first: the first takes 4 rows of x, the last at least 64. */
    readonly tiles: readonly QTile[];
    /** Workgroups below which smaller tiles are taken: about two for each core of the adapter. */
    readonly workgroups: number;
  };
}

export type AdapterClass = "software" | "integrated" | "discrete";

const FOUR_ROWS: QTile = { xRegisters: 4, wRegisters: 1, xThreads: 1, wThreads: 64 };

/** Measured on an H100. */
const DISCRETE: Tuning = {
  projection: { lanes: 16, rows: 2 },
  out: { lanes: 32 },
  // Fewer registers let more workgroups, whose choice of experts takes a while, run at a time.
  up: { lanes: 8, tile: 32, chunk: 4 },
  experts: { rows: 2, tile: 64, steps: 4 },
  down: { parts: 3 },
  attention: { heads: 16, positions: 4 },
  batch: { rows: 4, steps: 2 },
  prompt: {
    tiles: [
      FOUR_ROWS,
      { xRegisters: 4, wRegisters: 8, xThreads: 8, wThreads: 16 },
      { xRegisters: 8, wRegisters: 8, xThreads: 8, wThreads: 16 },
      { xRegisters: 8, wRegisters: 8, xThreads: 16, wThreads: 16 },
    ],
    workgroups: 256,
  },
};

export const TUNINGS: Readonly<Record<AdapterClass, Tuning>> = {
  // Measured on llvmpipe, where barriers of large workgroups cost most.
  software: {
    ...DISCRETE,
    out: { lanes: 8 },
    down: { parts: 1 },
    attention: { heads: 8, positions: 4 },
    prompt: {
      // Large ones are compiled slowly and gain nothing.
      tiles: [
        FOUR_ROWS,
        { xRegisters: 4, wRegisters: 4, xThreads: 8, wThreads: 16 },
        { xRegisters: 4, wRegisters: 4, xThreads: 16, wThreads: 16 },
      ],
      workgroups: 256,
    },
  },
  // At most 256 threads and 16 KiB a workgroup, which every adapter has. Not measured.
  integrated: {
    projection: { lanes: 16, rows: 2 },
    out: { lanes: 8 },
    up: { lanes: 8, tile: 32, chunk: 4 },
    experts: { rows: 4, tile: 32, steps: 2 },
    down: { parts: 1 },
    attention: { heads: 8, positions: 4 },
    batch: { rows: 4, steps: 2 },
    prompt: {
      tiles: [
        FOUR_ROWS,
        { xRegisters: 4, wRegisters: 4, xThreads: 8, wThreads: 16 },
        { xRegisters: 8, wRegisters: 4, xThreads: 8, wThreads: 16 },
      ],
      workgroups: 64,
    },
  },
  discrete: DISCRETE,
};

/** Threads a row of weights in each of the parts that `down.parts` counts. */
export const DOWN_LANES = 8;

/** Threads of a workgroup that takes rows of one expert. */
export function expertThreads({ up, experts }: Pick<Tuning, "up" | "experts">): number {
  return experts.tile / experts.steps * up.lanes;
}

/** Threads of a workgroup by what sets them. */
export function tuningThreads(tuning: Tuning): Readonly<Record<string, number>> {
  const { out, up, down, attention, prompt } = tuning;
  return {
    "out.lanes": 32 * out.lanes,
    "up.tile": up.tile * up.lanes,
    "experts.tile": expertThreads(tuning),
    "down.parts": 32 * DOWN_LANES * down.parts,
    "attention.heads": 8 * attention.heads,
    "prompt.tiles": Math.max(...prompt.tiles.map((tile) => tile.xThreads * tile.wThreads)),
  };
}

/** Throws an Error for numbers that the kernels can't have, or more than `threads` a workgroup. */
export function checkTuning(tuning: Tuning, threads: number): void {
  const { projection, out, up, experts, down, attention, batch, prompt } = tuning;
  const lanes = [8, 16, 32];
  among("projection.lanes", projection.lanes, lanes);
  among("projection.rows", projection.rows, [1, 2, 4, 8]);
  among("out.lanes", out.lanes, lanes);
  among("up.lanes", up.lanes, lanes);
  multiple("up.tile", up.tile, 32);
  between("up.chunk", up.chunk, 16);
  between("experts.rows", experts.rows, 16);
  multiple("experts.tile", experts.tile, 32);
  among("experts.steps", experts.steps, [1, 2, 4, 8, 16, 32].filter((n) => up.lanes % n === 0));
  between("down.parts", down.parts, 4);
  multiple("attention.heads", attention.heads, 8);
  among("attention.positions", attention.positions, [4, 8]);
  among("batch.rows", batch.rows, [1, 2, 4, 8]);
  among("batch.steps", batch.steps, [1, 2, 4]);
  if (experts.rows * experts.steps % up.lanes !== 0) {
    const found = experts.rows * experts.steps;
    refuse("experts.rows x experts.steps", `a multiple of up.lanes ${up.lanes}`, found);
  }
  const rows = batch.rows * batch.steps;
  atLeast("out.lanes", out.lanes, rows, "batch.rows x batch.steps");
  const all = rows * projection.rows;
  atLeast("projection.lanes", projection.lanes, all, "batch.rows x batch.steps x projection.rows");
  checkTiles(prompt.tiles);
  between("prompt.workgroups", prompt.workgroups, 65_535);
  for (const [name, count] of Object.entries(tuningThreads(tuning))) {
    if (count > threads) refuse(name, `at most ${threads} threads a workgroup`, count);
  }
}

function checkTiles(tiles: readonly QTile[]): void {
  if (tiles.length === 0) refuse("prompt.tiles", "at least one tile", "none");
  let before = 0;
  for (const [index, { xRegisters, wRegisters, xThreads, wThreads }] of tiles.entries()) {
    const name = `prompt.tiles.${index}`;
    among(`${name}.xRegisters`, xRegisters, [1, 2, 4, 8]);
    among(`${name}.wRegisters`, wRegisters, [1, 2, 4, 8]);
    for (const threads of [xThreads, wThreads]) {
      among(`${name} threads`, threads, [1, 2, 4, 8, 16, 32, 64, 128]);
    }
    const [x, weights, threads] = [
      xRegisters * xThreads,
      wRegisters * wThreads,
      xThreads * wThreads,
    ];
    atLeast(`${name} threads`, threads, Math.max(x, weights), "the rows of its longer side");
    if (index === 0 && x !== 4) refuse(name, "4 rows of x in the first tile", x);
    if (x < before) refuse(name, `at least the ${before} rows of x of the tile before`, x);
    before = x;
  }
  if (before < 64) refuse("prompt.tiles", "64 rows of x in the last tile", before);
}

function among(name: string, value: number, allowed: readonly number[]): void {
  if (!allowed.includes(value)) refuse(name, `one of ${allowed.join(", ")}`, value);
}

function multiple(name: string, value: number, unit: number): void {
  if (!(value > 0 && value % unit === 0)) refuse(name, `a multiple of ${unit}`, value);
}

function between(name: string, value: number, most: number): void {
  if (!(Number.isInteger(value) && value >= 1 && value <= most)) {
    refuse(name, `a whole number from 1 to ${most}`, value);
  }
}

function atLeast(name: string, value: number, least: number, what: string): void {
  if (value < least) refuse(name, `at least ${what}, ${least}`, value);
}

function refuse(name: string, wanted: string, found: number | string): never {
  throw new Error(`use tuning "${name}": wanted ${wanted}, found ${found}`);
}
