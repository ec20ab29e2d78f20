/** Tiles of lib/q_tile.wgsl: how much of an integer product one workgroup takes. */
import { checkLoops, checkWorkgroupMemory } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Prelude } from "./gpu/kernel.ts";
import f16PairSource from "./lib/f16_pair.wgsl" with { type: "text" };
import groupDotSource from "./lib/group_dot.wgsl" with { type: "text" };
import q4Source from "./lib/q_words_q4.wgsl" with { type: "text" };
import q8Source from "./lib/q_words_q8.wgsl" with { type: "text" };
import tileSource from "./lib/q_tile.wgsl" with { type: "text" };
import type { QTile } from "./gpu/tuning.ts";
import { stepCount } from "./quantize_rows.ts";

export type GroupedFormat = "q8" | "q4";

/** Quads of a row of the weights in a step, as they lie in memory. */
const STEP_QUADS: Readonly<Record<GroupedFormat, number>> = { q8: 4, q4: 2 };

export function qTileRows({ xRegisters, wRegisters, xThreads, wThreads }: QTile) {
  return { x: xRegisters * xThreads, weights: wRegisters * wThreads };
}

export function qTilePreludes(format: GroupedFormat): readonly Prelude[] {
  return [
    { name: "lib/f16_pair.wgsl", source: f16PairSource },
    { name: `lib/q_words_${format}.wgsl`, source: { q8: q8Source, q4: q4Source }[format] },
    { name: "lib/group_dot.wgsl", source: groupDotSource },
    { name: "lib/q_tile.wgsl", source: tileSource },
  ];
}

/** The constants of lib/q_tile.wgsl; checks the workgroup memory of its tiles. */
export function qTileConstants(
  gpu: Gpu,
  name: string,
  format: GroupedFormat,
  tile: QTile,
): Record<string, number> {
  const { x, weights } = qTileRows(tile);
  const threads = tile.xThreads * tile.wThreads;
  if (x > threads || weights > threads) {
    throw new Error(
      `compile "${name}": wanted a thread for each row of a tile, found ${threads} for ` +
        `${x} x ${weights} rows`,
    );
  }
  checkWorkgroupMemory(name, 64 * (x + weights + 4) + 8 * (x + weights), gpu.limits);
  return {
    X_REGISTERS: tile.xRegisters,
    W_REGISTERS: tile.wRegisters,
    X_THREADS: tile.xThreads,
    W_THREADS: tile.wThreads,
    THREADS: threads,
    X_ROWS: x,
    W_ROWS: weights,
    X_LOADS: Math.ceil(4 * x / threads),
    W_LOADS: Math.ceil(STEP_QUADS[format] * weights / threads),
  };
}

/** Loop turns of lib/q_tile.wgsl. */
export function checkQTileLoops(name: string, columns: number): void {
  checkLoops(name, 3 * (stepCount(columns) + 1));
}
