/**
 * Linear layers of routed experts: y[pair] = W[expert of pair] x.
 *
 * Stacks of q8 and q4 take x rounded to int8 and add group by group (lib/q_tile.wgsl). For the
 * others few tokens an expert go through expert_matvec, more through expert_matmul, which add in
 * the order of lib/matvec_rows.wgsl. So a token's result does not depend on which others are
 * routed.
 */
import { compileExpertMatmul, expertMatmul, type ExpertMatmulPipeline } from "./expert_matmul.ts";
import { compileExpertMatvec, expertMatvec, type ExpertMatvecPipeline } from "./expert_matvec.ts";
import type { ExpertRows } from "./expert_params.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { isGrouped, type Matrix } from "./matrix.ts";
import { MATVEC_X_ROWS } from "./matvec.ts";
import { groupedFormats, QExpertProjections } from "./q_projection.ts";
import type { GroupedFormat } from "./q_tile.ts";
import {
  compileQuantizeRows,
  QuantizedRows,
  quantizeRows,
  type QuantizeRowsPipeline,
  stepCount,
} from "./quantize_rows.ts";
import type { WeightFormat } from "./types.ts";
import type { FloatFormat } from "./weight_preludes.ts";

/**
 * Pairs of one tile, by pairs an expert on average, the most first: the padding of an expert's last
 * tile is to be small beside its pairs. The smallest tiles stream the weights.
 */
const TILE_SIZES = [
  { pairsPerExpert: 32, size: 64 },
  { pairsPerExpert: 8, size: 32 },
  { pairsPerExpert: 0, size: MATVEC_X_ROWS },
] as const;
const MATMUL_TILE_ROWS = [32, 64] as const;

interface FloatPipelines {
  readonly matvec: ExpertMatvecPipeline;
  readonly matmul: ReadonlyMap<number, ExpertMatmulPipeline>;
}

/** What q8 and q4 need. */
interface Grouped {
  readonly formats: ReadonlySet<WeightFormat>;
  readonly projections: QExpertProjections;
  readonly quantize: QuantizeRowsPipeline;
  /** Rows that come as floats. */
  readonly rounded: QuantizedRows;
}

export class ExpertProjections {
  private constructor(
    private readonly floats: ReadonlyMap<FloatFormat, FloatPipelines>,
    private readonly grouped: Grouped | null,
  ) {}

  /**
   * Compiles what stacks of these formats need. `shapes`: the largest x that `project` is given for
   * stacks of q8 and q4.
   */
  static async create(
    gpu: Gpu,
    formats: Iterable<WeightFormat>,
    shapes: readonly { readonly rows: number; readonly columns: number }[],
  ): Promise<ExpertProjections> {
    const wanted = [...new Set(formats)];
    const [grouped, ...floats] = await Promise.all([
      createGrouped(gpu, groupedFormats(wanted), shapes),
      ...wanted.filter((format) => !isGrouped(format)).map(async (format) => {
        const [matvec, ...matmul] = await Promise.all([
          compileExpertMatvec(gpu, format),
          ...MATMUL_TILE_ROWS.map((rows) => compileExpertMatmul(gpu, format, rows)),
        ]);
        const byRows = new Map(MATMUL_TILE_ROWS.map((rows, index) => [rows, matmul[index]!]));
        return [format, { matvec, matmul: byRows }] as const;
      }),
    ]);
    return new ExpertProjections(new Map(floats), grouped);
  }

  /** Pairs of one tile, which the tokens must be grouped into for `project`. */
  static tileSize(pairCount: number, expertCount: number): number {
    return TILE_SIZES.find((tile) => pairCount >= tile.pairsPerExpert * expertCount)!.size;
  }

  /** y[pair] = W[expert of pair] x, in tiles of `tileSize` pairs. Shapes as in `ExpertRows`. */
  project(recorder: Recorder, matrix: Matrix, rows: ExpertRows, tileSize: number): void {
    const { spec } = matrix;
    const fail = (wanted: string, found: string) => {
      throw new Error(`project through "${spec.key}": wanted ${wanted}, found ${found}`);
    };
    if (rows.xStride < spec.columns || rows.yStride < rows.yOffset + spec.rows) {
      fail(
        `rows of at least ${spec.columns} in x and ${rows.yOffset + spec.rows} in y`,
        `${rows.xStride} and ${rows.yStride}`,
      );
    }
    recorder.work(2 * rows.pairCount * spec.rows * spec.columns);
    if (isGrouped(spec.format)) {
      if (!this.grouped?.formats.has(spec.format)) fail("a prepared format", spec.format);
      const { projections, quantize, rounded } = this.grouped!;
      const rowCount = Math.ceil(rows.pairCount / rows.pairsPerXRow);
      quantizeRows(recorder, quantize, rows.x, rows.xStride, rounded, spec.columns, rowCount);
      projections.project(recorder, matrix, rounded, rows, tileSize);
      return;
    }
    const pipelines = this.floats.get(spec.format);
    if (pipelines === undefined) return fail("a prepared format", spec.format);
    const matmul = pipelines.matmul.get(tileSize);
    if (matmul === undefined) expertMatvec(recorder, pipelines.matvec, matrix, rows);
    else expertMatmul(recorder, matmul, matrix, rows);
  }
}

async function createGrouped(
  gpu: Gpu,
  formats: readonly GroupedFormat[],
  shapes: readonly { readonly rows: number; readonly columns: number }[],
): Promise<Grouped | null> {
  if (formats.length === 0) return null;
  const [projections, quantize] = await Promise.all([
    QExpertProjections.create(gpu, formats),
    compileQuantizeRows(gpu),
  ]);
  const steps = Math.max(...shapes.map(({ rows, columns }) => rows * stepCount(columns)));
  const rounded = QuantizedRows.allocate(gpu, "experts' rows", steps, 1);
  return { formats: new Set(formats), projections, quantize, rounded };
}
