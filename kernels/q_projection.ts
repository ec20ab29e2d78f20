/** Products of q8 and q4 matrices, for any number of rows, through the tile that suits it. */
import type { ExpertRows } from "./expert_params.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { isGrouped, type Matrix } from "./matrix.ts";
import {
  compileQExpertMatmul,
  qExpertMatmul,
  type QExpertMatmulPipeline,
} from "./q_expert_matmul.ts";
import { compileQMatmul, qMatmul, type QMatmulPipeline, type QTarget } from "./q_matmul.ts";
import { type GroupedFormat, qTileRows } from "./q_tile.ts";
import { QuantizedRows } from "./quantize_rows.ts";
import type { WeightFormat } from "./types.ts";

/** The integer formats among `formats`. */
export function groupedFormats(formats: Iterable<WeightFormat>): GroupedFormat[] {
  return [...new Set(formats)].filter(isGrouped);
}

/** Pipelines for matrices that are used one at a time. */
export class QProjections {
  private constructor(
    private readonly pipelines: ReadonlyMap<GroupedFormat, readonly QMatmulPipeline[]>,
    /** Workgroups below which smaller tiles are taken. Results do not depend on the tile. */
    private readonly workgroupsMin: number,
  ) {}

  static async create(gpu: Gpu, formats: readonly GroupedFormat[]): Promise<QProjections> {
    const entries = await Promise.all(formats.map(async (format) => {
      const pipelines = await Promise.all(
        gpu.tuning.numbers.prompt.tiles.map((tile) => compileQMatmul(gpu, format, tile)),
      );
      return [format, pipelines] as const;
    }));
    return new QProjections(new Map(entries), gpu.tuning.numbers.prompt.workgroups);
  }

  /** y (+)= W x for a matrix of one of the formats. */
  project(
    recorder: Recorder,
    matrix: Matrix,
    x: QuantizedRows,
    rowCount: number,
    target: QTarget,
  ): void {
    const pipelines = this.pipelines.get(matrix.spec.format as GroupedFormat)!;
    x.check(rowCount, matrix.spec.columns);
    const suits = ({ tile }: QMatmulPipeline) => {
      const { x: xRows, weights } = qTileRows(tile);
      return 2 * rowCount > xRows &&
        Math.ceil(rowCount / xRows) * Math.ceil(matrix.spec.rows / weights) >= this.workgroupsMin;
    };
    const [smallest, next = smallest, ...larger] = pipelines;
    const small = rowCount <= qTileRows(smallest!.tile).x ? smallest! : next!;
    qMatmul(recorder, larger.findLast(suits) ?? small, matrix, x, rowCount, target);
  }
}

/** Pipelines for stacks of experts. */
export class QExpertProjections {
  private constructor(
    private readonly pipelines: ReadonlyMap<GroupedFormat, readonly QExpertMatmulPipeline[]>,
  ) {}

  static async create(gpu: Gpu, formats: readonly GroupedFormat[]): Promise<QExpertProjections> {
    const entries = await Promise.all(formats.map(async (format) => {
      const pipelines = await Promise.all(
        gpu.tuning.numbers.prompt.tiles.map((tile) => compileQExpertMatmul(gpu, format, tile)),
      );
      return [format, pipelines] as const;
    }));
    return new QExpertProjections(new Map(entries));
  }

  /** y[pair] = W[expert of pair] x for a stack of one of the formats, in tiles of `tileSize`. */
  project(
    recorder: Recorder,
    matrix: Matrix,
    x: QuantizedRows,
    rows: Omit<ExpertRows, "x" | "xStride">,
    tileSize: number,
  ): void {
    const pipelines = this.pipelines.get(matrix.spec.format as GroupedFormat)!;
    x.check(Math.ceil(rows.pairCount / rows.pairsPerXRow), matrix.spec.columns);
    const fitting = pipelines.find(({ tile }) => qTileRows(tile).x >= tileSize);
    if (fitting === undefined) {
      throw new Error(
        `project through "${matrix.spec.key}": wanted tiles of at most ` +
          `${qTileRows(pipelines.at(-1)!.tile).x} pairs, found ${tileSize}`,
      );
    }
    qExpertMatmul(recorder, fitting, matrix, x, rows);
  }
}
