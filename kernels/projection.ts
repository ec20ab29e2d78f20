/**
 * Linear layers: y = W x for any number of rows.
 *
 * Few rows go through matvec, more through matmul. Both add in the same order (see
 * lib/matvec_rows.wgsl), so a row's result has the same bits alone, in a batch and in a prefill.
 */
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { compileMatmul, matmul, type MatmulPipeline } from "./matmul.ts";
import type { Matrix } from "./matrix.ts";
import { compileMatvec, matvec, type MatvecPipeline } from "./matvec.ts";
import type { Rows } from "./projection_params.ts";
import type { WeightFormat } from "./types.ts";

/** Up to this many rows weights are streamed (matvec), above it tiles are multiplied (matmul). */
export const MATVEC_ROWS_MAX = 8;
/** Rows of a matmul tile, by rows of x: the first that holds them all, else the last. */
const TILE_ROWS = [32, 64] as const;

interface Pipelines {
  readonly matvec: MatvecPipeline;
  readonly matmul: readonly MatmulPipeline[];
}

export class Projections {
  readonly #pipelines = new Map<WeightFormat, Pipelines>();

  private constructor(private readonly gpu: Gpu, readonly rowsMax: number) {}

  /** `rowsMax`: the most rows that `project` will be asked for. */
  static create(gpu: Gpu, rowsMax: number): Promise<Projections> {
    return Promise.resolve(new Projections(gpu, rowsMax));
  }

  /** Compiles what matrices of these formats need. Must precede `project`. */
  async prepare(formats: Iterable<WeightFormat>): Promise<void> {
    await Promise.all([...new Set(formats)].map(async (format) => {
      if (this.#pipelines.has(format)) return;
      const tiles = this.rowsMax > MATVEC_ROWS_MAX ? TILE_ROWS : [];
      const [matvec, ...matmul] = await Promise.all([
        compileMatvec(this.gpu, format),
        ...tiles.map((tileRows) => compileMatmul(this.gpu, format, tileRows)),
      ]);
      this.#pipelines.set(format, { matvec, matmul });
    }));
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
    const rows = { x, xStride, y, yStride, yOffset, rowCount, accumulate };
    this.#check(matrix, rows);
    if (rowCount === 0) return;
    const pipelines = this.#pipelines.get(matrix.spec.format)!;
    if (rowCount <= MATVEC_ROWS_MAX) {
      matvec(recorder, pipelines.matvec, matrix, rows);
    } else {
      const { matmul: tiles } = pipelines;
      const tile = tiles.find(({ tileRows }) => rowCount <= tileRows) ?? tiles.at(-1)!;
      matmul(recorder, tile, matrix, rows);
    }
  }

  #check({ spec }: Matrix, rows: Rows): void {
    const { x, xStride, y, yStride, yOffset, rowCount } = rows;
    const fail = (wanted: string, found: number | string) => {
      throw new Error(`project through "${spec.key}": wanted ${wanted}, found ${found}`);
    };
    if (!this.#pipelines.has(spec.format)) fail("a prepared format", spec.format);
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
