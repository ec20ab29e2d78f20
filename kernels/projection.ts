/**
 * Linear layers: y = W x for any number of rows.
 *
 * Matrices of q8 and q4 take x rounded to int8 and add group by group (lib/q_tile.wgsl). For the
 * others few rows go through matvec, more through matmul, which add in the same order (see
 * lib/matvec_rows.wgsl). So a row's result has the same bits alone, in a batch and in a prefill.
 */
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { compileMatmul, matmul, type MatmulPipeline } from "./matmul.ts";
import { isGrouped, type Matrix } from "./matrix.ts";
import { compileMatvec, matvec, type MatvecPipeline } from "./matvec.ts";
import type { Rows } from "./projection_params.ts";
import { groupedFormats, QProjections } from "./q_projection.ts";
import type { GroupedFormat } from "./q_tile.ts";
import {
  compileQuantizeRows,
  QuantizedRows,
  quantizeRows,
  type QuantizeRowsPipeline,
} from "./quantize_rows.ts";
import type { WeightFormat } from "./types.ts";
import type { FloatFormat } from "./weight_preludes.ts";

/** Up to this many rows weights are streamed (matvec), above it tiles are multiplied (matmul). */
export const MATVEC_ROWS_MAX = 8;
/** Rows of a matmul tile, by rows of x: the first that holds them all, else the last. */
const TILE_ROWS = [32, 64] as const;

interface FloatPipelines {
  readonly matvec: MatvecPipeline;
  readonly matmul: readonly MatmulPipeline[];
}

/** What q8 and q4 need. */
interface Grouped {
  readonly formats: ReadonlySet<WeightFormat>;
  readonly projections: QProjections;
  readonly quantize: QuantizeRowsPipeline;
  /** Rows that come as floats. */
  readonly rounded: QuantizedRows;
}

export class Projections {
  readonly #floats = new Map<FloatFormat, FloatPipelines>();
  #grouped: Grouped | null = null;

  private constructor(private readonly gpu: Gpu, readonly rowsMax: number) {}

  /** `rowsMax`: the most rows that `project` will be asked for. */
  static create(gpu: Gpu, rowsMax: number): Promise<Projections> {
    return Promise.resolve(new Projections(gpu, rowsMax));
  }

  /**
   * Compiles what matrices of these formats need. `groupedColumns`: the most columns of a matrix of
   * q8 or q4. Once, before `project`.
   */
  async prepare(formats: Iterable<WeightFormat>, groupedColumns = 0): Promise<void> {
    const wanted = [...new Set(formats)];
    const floats = wanted.filter((format) => !isGrouped(format));
    await Promise.all([
      this.#prepareGrouped(groupedFormats(wanted), groupedColumns),
      ...floats.map(async (format) => {
        const tiles = this.rowsMax > MATVEC_ROWS_MAX ? TILE_ROWS : [];
        const [matvec, ...matmul] = await Promise.all([
          compileMatvec(this.gpu, format),
          ...tiles.map((tileRows) => compileMatmul(this.gpu, format, tileRows)),
        ]);
        this.#floats.set(format, { matvec, matmul });
      }),
    ]);
  }

  async #prepareGrouped(formats: readonly GroupedFormat[], columns: number): Promise<void> {
    if (formats.length === 0) return;
    const [projections, quantize] = await Promise.all([
      QProjections.create(this.gpu, formats),
      compileQuantizeRows(this.gpu),
    ]);
    const rounded = QuantizedRows.allocate(this.gpu, "projected rows", this.rowsMax, columns);
    this.#grouped = { formats: new Set(formats), projections, quantize, rounded };
  }

  /**
   * y[row][yOffset + r] (+)= sum over c of W[r][c] x[row][c] for rows [0, rowCount): x f32
   * [rowCount][xStride], y f32 [rowCount][yStride]. What follows a row's columns in x is not read.
   * Throws when the format was not prepared or the shapes do not fit the buffers.
   */
  project(
    recorder: Recorder,
    matrix: Matrix,
    x: GPUBuffer,
    xStride: number,
    y: GPUBuffer,
    yStride: number,
    yOffset: number,
    rowCount: number,
    accumulate: boolean,
  ): void {
    const { format } = matrix.spec;
    const rows = { x, xStride, y, yStride, yOffset, rowCount, accumulate };
    this.#check(matrix, rows);
    if (rowCount === 0) return;
    recorder.work(2 * rowCount * matrix.spec.rows * matrix.spec.columns);
    if (isGrouped(format)) {
      const { projections, quantize, rounded } = this.#grouped!;
      quantizeRows(recorder, quantize, x, xStride, rounded, matrix.spec.columns, rowCount);
      projections.project(recorder, matrix, rounded, rowCount, rows);
    } else {
      this.#projectFloats(recorder, format, matrix, rows);
    }
  }

  #projectFloats(recorder: Recorder, format: FloatFormat, matrix: Matrix, rows: Rows): void {
    const { matvec: single, matmul: tiles } = this.#floats.get(format)!;
    if (rows.rowCount <= MATVEC_ROWS_MAX) {
      matvec(recorder, single, matrix, rows);
    } else {
      const tile = tiles.find(({ tileRows }) => rows.rowCount <= tileRows) ?? tiles.at(-1)!;
      matmul(recorder, tile, matrix, rows);
    }
  }

  #check({ spec }: Matrix, rows: Rows): void {
    const { x, xStride, y, yStride, yOffset, rowCount } = rows;
    const fail = (wanted: string, found: number | string) => {
      throw new Error(`project through "${spec.key}": wanted ${wanted}, found ${found}`);
    };
    const prepared = isGrouped(spec.format)
      ? this.#grouped?.formats.has(spec.format)
      : this.#floats.has(spec.format);
    if (!prepared) fail("a prepared format", spec.format);
    if (spec.matrices !== 1) fail("one matrix", spec.matrices);
    if (rowCount > this.rowsMax) fail(`at most ${this.rowsMax} rows`, rowCount);
    if (xStride < spec.columns) fail(`rows of at least ${spec.columns} in x`, xStride);
    if (yStride < yOffset + spec.rows) {
      fail(`rows of at least ${yOffset + spec.rows} in y`, yStride);
    }
    const xBytes = 4 * ((rowCount - 1) * xStride + spec.columns);
    const yBytes = 4 * ((rowCount - 1) * yStride + yOffset + spec.rows);
    if (x.size < xBytes) fail(`x of at least ${xBytes} bytes`, x.size);
    if (y.size < yBytes) fail(`y of at least ${yBytes} bytes`, y.size);
  }
}
