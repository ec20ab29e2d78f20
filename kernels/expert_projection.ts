/**
 * Linear layers of routed experts: y[pair] = W[expert of pair] x.
 *
 * Few tokens an expert go through expert_matvec, more through expert_matmul. Both add in the order
 * of lib/matvec_rows.wgsl, so a token's result does not depend on which other tokens are routed.
 */
import { compileExpertMatmul, expertMatmul, type ExpertMatmulPipeline } from "./expert_matmul.ts";
import { compileExpertMatvec, expertMatvec, type ExpertMatvecPipeline } from "./expert_matvec.ts";
import type { ExpertRows } from "./expert_params.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import { MATVEC_X_ROWS } from "./matvec.ts";
import type { WeightFormat } from "./types.ts";

/** From this many pairs an expert on average, tiles are multiplied instead of weights streamed. */
const MATMUL_PAIRS_PER_EXPERT = 8;
const MATMUL_TILE_ROWS = 32;

interface Pipelines {
  readonly matvec: ExpertMatvecPipeline;
  readonly matmul: ExpertMatmulPipeline;
}

export class ExpertProjections {
  readonly #pipelines = new Map<WeightFormat, Pipelines>();

  private constructor() {}

  /** Compiles what stacks of these formats need. */
  static async create(gpu: Gpu, formats: Iterable<WeightFormat>): Promise<ExpertProjections> {
    const created = new ExpertProjections();
    await Promise.all([...new Set(formats)].map(async (format) => {
      const [matvec, matmul] = await Promise.all([
        compileExpertMatvec(gpu, format),
        compileExpertMatmul(gpu, format, MATMUL_TILE_ROWS),
      ]);
      created.#pipelines.set(format, { matvec, matmul });
    }));
    return created;
  }

  /** Pairs of one tile, which the tokens must be grouped into for `project`. */
  static tileSize(pairCount: number, expertCount: number): number {
    return pairCount >= MATMUL_PAIRS_PER_EXPERT * expertCount ? MATMUL_TILE_ROWS : MATVEC_X_ROWS;
  }

  /** y[pair] = W[expert of pair] x, in tiles of `tileSize` pairs. Shapes as in `ExpertRows`. */
  project(recorder: Recorder, matrix: Matrix, rows: ExpertRows, tileSize: number): void {
    const { spec } = matrix;
    const pipelines = this.#pipelines.get(spec.format);
    if (pipelines === undefined) {
      throw new Error(
        `project through "${spec.key}": wanted a prepared format, found ${spec.format}`,
      );
    }
    if (rows.xStride < spec.columns || rows.yStride < rows.yOffset + spec.rows) {
      throw new Error(
        `project through "${spec.key}": wanted rows of at least ${spec.columns} in x and ` +
          `${rows.yOffset + spec.rows} in y, found ${rows.xStride} and ${rows.yStride}`,
      );
    }
    if (tileSize === MATVEC_X_ROWS) expertMatvec(recorder, pipelines.matvec, matrix, rows);
    else expertMatmul(recorder, pipelines.matmul, matrix, rows);
  }
}
