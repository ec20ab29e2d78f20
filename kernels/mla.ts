/**
 * The MLA mixer: residual += MLA(RMSNorm(residual)), and the rows' latents enter the cache.
 *
 * A sequence's single row takes the absorbed form: queries go through each head's key rows once,
 * then every position costs one dot product with its cache entry; the attended latent goes through
 * the head's value rows at the end. Several rows take the expanded form: kv_b of the context once,
 * then a third of the arithmetic for each row, head and position.
 */
import type { Gpu } from "./gpu/gpu.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import { latentQuads } from "./latent_cache.ts";
import type { Matrix } from "./matrix.ts";
import { compileMlaAbsorb, mlaAbsorb, type MlaAbsorbPipeline } from "./mla_absorb.ts";
import {
  compileMlaAttention,
  mlaAttention,
  type MlaAttentionPipeline,
  TILE_TOKENS,
  valueQuads,
} from "./mla_attention.ts";
import { MlaExpanded } from "./mla_expanded.ts";
import { compileMlaLatent, mlaLatent, type MlaLatentPipeline } from "./mla_latent.ts";
import { compileMlaMerge, contextQuads, mlaMerge, type MlaMergePipeline } from "./mla_merge.ts";
import { compileMlaValue, mlaValue, type MlaValuePipeline } from "./mla_value.ts";
import type { Projections } from "./projection.ts";
import { RmsNorm } from "./rms_norm.ts";
import { scratch, vectorBuffer } from "./scratch.ts";
import type { SequenceRows, StepTables } from "./step_buffers.ts";
import type { Capacity, ModelShape, WeightFormat } from "./types.ts";

/** Splits of the longest context: enough workgroups to fill a GPU with one row. */
const SPLITS_MAX = 64;
/** Softmaxes of splits that are held at once; a step's rows go through in batches of this size. */
const SPLIT_BYTES = 64 << 20;

/** Weights of one layer; N heads. */
export interface MlaWeights {
  /** [1, hidden] f32. */
  readonly norm: Matrix;
  /** [N (nope + shared), hidden]. */
  readonly q: Matrix;
  /** [latent + shared, hidden]. */
  readonly kvA: Matrix;
  /** [1, latent] f32. */
  readonly kvNorm: Matrix;
  /** [N (nope + value), latent]. */
  readonly kvB: Matrix;
  /** [hidden, N value]. */
  readonly o: Matrix;
}

interface Pipelines {
  readonly norm: RmsNorm;
  readonly latent: MlaLatentPipeline;
  readonly attention: MlaAttentionPipeline;
  readonly merge: MlaMergePipeline;
  readonly absorb: ReadonlyMap<WeightFormat, MlaAbsorbPipeline>;
  readonly value: ReadonlyMap<WeightFormat, MlaValuePipeline>;
}

/** f32 activations of one layer, used by all layers in turn. */
interface Buffers {
  /** [rows][hidden]: the normalised residual. */
  readonly x: GPUBuffer;
  /** [rows][N][nope + shared]. */
  readonly queries: GPUBuffer;
  /** [rows][latent + shared], before the norm. */
  readonly compressed: GPUBuffer;
  /** [sequences][N][4 quads of an entry]: of single rows. */
  readonly absorbed: GPUBuffer;
  /** [batch rows][splits][N] softmaxes. */
  readonly sums: GPUBuffer;
  readonly maxima: GPUBuffer;
  /** [sequences][N][latent, padded]: attended latents of single rows. */
  readonly context: GPUBuffer;
  /** [rows][N][value]. */
  readonly o: GPUBuffer;
}

export class MlaBlock {
  private constructor(
    private readonly projections: Projections,
    private readonly shape: ModelShape,
    private readonly pageTokens: number,
    private readonly splitTokens: number,
    /** (row, split) pairs that `sums` holds. */
    private readonly rowSplitsMax: number,
    private readonly expanded: MlaExpanded,
    private readonly pipelines: Pipelines,
    private readonly buffers: Buffers,
  ) {}

  /**
   * Compiles the kernels, for kv_b in these formats, and allocates the activations of the largest
   * step. The projections must be prepared for the weights' formats before `encode`. Throws where
   * the adapter is too small.
   */
  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
    kvBFormats: Iterable<WeightFormat>,
  ): Promise<MlaBlock> {
    const { pageTokens, pagesPerSequence, latentFormat, rows, sequences } = capacity;
    const formats = [...new Set(kvBFormats)];
    const tiles = Math.ceil(pageTokens * pagesPerSequence / TILE_TOKENS);
    const splitTokens = TILE_TOKENS * Math.ceil(tiles / SPLITS_MAX);
    const splitsMax = Math.ceil(pageTokens * pagesPerSequence / splitTokens);
    const [norm, latent, attention, merge, expanded, absorb, value] = await Promise.all([
      RmsNorm.create(gpu),
      compileMlaLatent(gpu, latentFormat),
      compileMlaAttention(gpu, shape.mla, latentFormat, splitTokens),
      compileMlaMerge(gpu),
      MlaExpanded.create(gpu, shape.mla, capacity, formats),
      Promise.all(formats.map((format) => compileMlaAbsorb(gpu, format))),
      Promise.all(formats.map((format) => compileMlaValue(gpu, format))),
    ]);
    const pipelines = {
      norm,
      latent,
      attention,
      merge,
      absorb: new Map(formats.map((format, index) => [format, absorb[index]!])),
      value: new Map(formats.map((format, index) => [format, value[index]!])),
    };
    const splitBytes = 16 * shape.mla.headCount * valueQuads(shape.mla);
    const rowSplitsMax = Math.min(
      sequences * splitsMax,
      Math.max(splitsMax, Math.floor(SPLIT_BYTES / splitBytes)),
    );
    return new MlaBlock(
      projections,
      shape,
      pageTokens,
      splitTokens,
      rowSplitsMax,
      expanded,
      pipelines,
      allocate(gpu, shape, rows, sequences, rowSplitsMax),
    );
  }

  /** residual f32 [rowCount][hidden] += the mixer's output; `latents`: the layer's cache. */
  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    step: StepTables,
    weights: MlaWeights,
    latents: GPUBuffer,
  ): void {
    const { hiddenSize, mla: shape } = this.shape;
    const { kvB } = weights;
    const absorb = this.pipelines.absorb.get(kvB.spec.format);
    const value = this.pipelines.value.get(kvB.spec.format);
    if (absorb === undefined || value === undefined) {
      throw new Error(
        `use weight "${kvB.spec.key}": wanted a prepared format, found ${kvB.spec.format}`,
      );
    }
    const { queries, absorbed, context, o } = this.buffers;
    const { rowCount } = step;
    this.#project(recorder, residual, rowCount, weights);
    this.#store(recorder, step, weights, latents);
    for (const rows of singleRows(step.sequences)) {
      mlaAbsorb(recorder, absorb, kvB, read(queries), write(absorbed), shape, rows);
      this.#attend(recorder, step, latents, rows);
      mlaValue(recorder, value, kvB, read(context), write(o), shape, rows);
    }
    for (const sequence of step.sequences) {
      if (sequence.rowCount === 1) continue;
      this.expanded.encode(recorder, kvB, queries, latents, step.pages, o, sequence);
    }
    this.projections.project(
      recorder,
      weights.o,
      o,
      shape.headCount * shape.valueDim,
      residual,
      hiddenSize,
      0,
      rowCount,
      true,
    );
  }

  #project(
    recorder: Recorder,
    residual: GPUBuffer,
    rowCount: number,
    weights: MlaWeights,
  ): void {
    const { hiddenSize: hidden, normEpsilon } = this.shape;
    const { x, queries, compressed } = this.buffers;
    this.pipelines.norm.normalize(
      recorder,
      residual,
      hidden,
      vectorBuffer(weights.norm),
      x,
      hidden,
      hidden,
      rowCount,
      normEpsilon,
    );
    const project = (matrix: Matrix, to: GPUBuffer) => {
      const { rows } = matrix.spec;
      this.projections.project(recorder, matrix, x, hidden, to, rows, 0, rowCount, false);
    };
    project(weights.q, queries);
    project(weights.kvA, compressed);
  }

  #store(
    recorder: Recorder,
    { rows, pages, rowCount }: StepTables,
    weights: MlaWeights,
    latents: GPUBuffer,
  ): void {
    const { mla: shape, latentNormEpsilon: epsilon } = this.shape;
    mlaLatent(
      recorder,
      this.pipelines.latent,
      {
        compressed: read(this.buffers.compressed),
        weight: read(vectorBuffer(weights.kvNorm)),
        rows,
        pages,
        latents: write(latents),
      },
      shape,
      { pageTokens: this.pageTokens, epsilon },
      rowCount,
    );
  }

  /** Attention in batches of rows, so that the splits' softmaxes fit their buffer. */
  #attend(recorder: Recorder, step: StepTables, latents: GPUBuffer, range: RowRange): void {
    const { mla: shape } = this.shape;
    const { attention, merge } = this.pipelines;
    const { absorbed, sums, maxima, context } = this.buffers;
    const { rows, pages } = step;
    const splits = Math.ceil((range.lastPosition + 1) / this.splitTokens);
    const batchRows = Math.floor(this.rowSplitsMax / splits);
    for (let rowStart = 0; rowStart < range.count; rowStart += batchRows) {
      const batch = {
        firstRow: range.start,
        rowStart,
        rowCount: Math.min(batchRows, range.count - rowStart),
        pageTokens: this.pageTokens,
        splitTokens: this.splitTokens,
        splits,
      };
      mlaAttention(
        recorder,
        attention,
        {
          absorbed: read(absorbed),
          latents: read(latents),
          rows,
          pages,
          sums: write(sums),
          maxima: write(maxima),
        },
        shape,
        batch,
      );
      mlaMerge(
        recorder,
        merge,
        { rows, sums: read(sums), maxima: read(maxima), context: write(context) },
        shape,
        batch,
      );
    }
  }
}

/** Rows [start, start + count) of a step. */
interface RowRange {
  readonly start: number;
  readonly count: number;
  readonly lastPosition: number;
}

/** Sequences with one row, those side by side joined. */
function singleRows(sequences: readonly SequenceRows[]): RowRange[] {
  const ranges: RowRange[] = [];
  for (const { rowStart, rowCount, past } of sequences) {
    if (rowCount > 1) continue;
    const before = ranges.at(-1);
    if (before === undefined || before.start + before.count !== rowStart) {
      ranges.push({ start: rowStart, count: 1, lastPosition: past });
    } else {
      const lastPosition = Math.max(before.lastPosition, past);
      ranges[ranges.length - 1] = { start: before.start, count: before.count + 1, lastPosition };
    }
  }
  return ranges;
}

function allocate(
  gpu: Gpu,
  shape: ModelShape,
  rows: number,
  sequences: number,
  rowSplits: number,
): Buffers {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape.mla;
  const floats = (label: string, count: number) => scratch(gpu, `MLA ${label}`, count);
  return {
    x: floats("input", rows * shape.hiddenSize),
    queries: floats("queries", rows * headCount * (nopeDim + sharedKeyDim)),
    compressed: floats("latents before the norm", rows * (latentDim + sharedKeyDim)),
    absorbed: floats("absorbed queries", sequences * headCount * 4 * latentQuads(shape.mla)),
    sums: floats("split sums", rowSplits * headCount * 4 * valueQuads(shape.mla)),
    maxima: floats("split maxima", rowSplits * headCount * 2),
    context: floats("attended latents", sequences * headCount * 4 * contextQuads(shape.mla)),
    o: floats("output", rows * headCount * valueDim),
  };
}
