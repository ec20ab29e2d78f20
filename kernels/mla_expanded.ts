/**
 * MLA of a sequence's several rows, in the expanded form: the context goes block by block through
 * kv_b into keys and values, and the rows attend to them with an online softmax.
 *
 * In multiply-adds a (row, head, position) costs 320 so and 1,088 in the absorbed form, at the
 * published sizes; expanding costs 131,072 a (head, position), which 171 rows earn back. The choice
 * can't depend on the number of rows: a row's bits must not depend on how its prompt is cut.
 */
import type { Gpu } from "./gpu/gpu.ts";
import { type BufferUse, read, type Recorder, write } from "./gpu/recorder.ts";
import { latentQuads } from "./latent_cache.ts";
import { compileMatmul, matmul, type MatmulPipeline } from "./matmul.ts";
import type { Matrix } from "./matrix.ts";
import { compileMlaGather, mlaGather, type MlaGatherPipeline } from "./mla_gather.ts";
import {
  compileMlaPrefill,
  mlaPrefill,
  type MlaPrefillPipeline,
  PREFILL_TILE_TOKENS,
} from "./mla_prefill.ts";
import { scratch } from "./scratch.ts";
import type { SequenceRows } from "./step_buffers.ts";
import type { Capacity, MlaShape, WeightFormat } from "./types.ts";

/** Positions of a context that are expanded at once, where one binding holds them. */
const BLOCK_TOKENS = 2_048;
/** Rows of a tile of the product that expands them. */
const EXPAND_TILE_ROWS = 64;

interface Pipelines {
  readonly gather: MlaGatherPipeline;
  readonly expand: ReadonlyMap<WeightFormat, MatmulPipeline>;
  readonly prefill: MlaPrefillPipeline;
}

interface Buffers {
  /** f32 [block][4 quads of an entry]. */
  readonly entries: GPUBuffer;
  /** f32 [block][heads][nope + value]. */
  readonly expanded: GPUBuffer;
  /** f32 [rows][heads][2]: of the softmax between blocks. */
  readonly maxima: GPUBuffer;
}

export class MlaExpanded {
  private constructor(
    private readonly shape: MlaShape,
    private readonly pageTokens: number,
    /** Positions of a block, whole tiles. */
    private readonly blockTokens: number,
    private readonly pipelines: Pipelines,
    private readonly buffers: Buffers,
  ) {}

  /** For kv_b in these formats. Throws where the adapter is too small. */
  static async create(
    gpu: Gpu,
    shape: MlaShape,
    { pageTokens, pagesPerSequence, rows, latentFormat }: Capacity,
    kvBFormats: readonly WeightFormat[],
    blockTokensMax: number = BLOCK_TOKENS,
  ): Promise<MlaExpanded> {
    const [gather, prefill, ...expand] = await Promise.all([
      compileMlaGather(gpu, latentFormat),
      compileMlaPrefill(gpu, shape),
      ...kvBFormats.map((format) => compileMatmul(gpu, format, EXPAND_TILE_ROWS)),
    ]);
    const width = shape.headCount * (shape.nopeDim + shape.valueDim);
    const limit = gpu.bufferBytesMax;
    const tokens = Math.min(blockTokensMax, Math.floor(limit / (4 * width)));
    const tiles = Math.min(
      Math.ceil(pageTokens * pagesPerSequence / PREFILL_TILE_TOKENS),
      Math.max(1, Math.floor(tokens / PREFILL_TILE_TOKENS)),
    );
    const blockTokens = tiles * PREFILL_TILE_TOKENS;
    const byFormat = new Map(kvBFormats.map((format, index) => [format, expand[index]!]));
    return new MlaExpanded(
      shape,
      pageTokens,
      blockTokens,
      { gather, prefill, expand: byFormat },
      {
        entries: scratch(gpu, "MLA block of entries", blockTokens * 4 * latentQuads(shape)),
        expanded: scratch(gpu, "MLA expanded block", blockTokens * width),
        maxima: scratch(gpu, "MLA block maxima", rows * shape.headCount * 2),
      },
    );
  }

  /**
   * o[row] of a sequence's rows, whose entries are in the cache: queries f32 [rows][heads][nope +
   * shared], `latents` the layer's cache, `pages` of the step, o f32 [rows][heads][value].
   */
  encode(
    recorder: Recorder,
    kvB: Matrix,
    queries: GPUBuffer,
    latents: GPUBuffer,
    pages: BufferUse,
    o: GPUBuffer,
    { rowStart, rowCount, past, pageStart }: SequenceRows,
  ): void {
    const { shape, pageTokens, blockTokens } = this;
    const { gather, expand, prefill } = this.pipelines;
    const { entries, expanded, maxima } = this.buffers;
    for (let blockStart = 0; blockStart < past + rowCount; blockStart += blockTokens) {
      const blockCount = Math.min(blockTokens, past + rowCount - blockStart);
      recorder.work(2 * blockCount * shape.headCount * operationsOf(shape, rowCount));
      mlaGather(
        recorder,
        gather,
        { latents: read(latents), pages, entries: write(entries) },
        shape,
        { start: blockStart, count: blockCount, pageStart, pageTokens },
      );
      matmul(recorder, expand.get(kvB.spec.format)!, kvB, {
        x: entries,
        xStride: 4 * latentQuads(shape),
        y: expanded,
        yStride: kvB.spec.rows,
        yOffset: 0,
        rowCount: blockCount,
        accumulate: false,
      });
      mlaPrefill(
        recorder,
        prefill,
        {
          queries: read(queries),
          expanded: read(expanded),
          entries: read(entries),
          o: write(o),
          maxima: write(maxima),
        },
        shape,
        { rowStart, rowCount, past, blockStart, blockCount },
      );
    }
  }
}

/** Multiply-adds that a position of the context costs a head: its expansion and `rowCount` rows. */
function operationsOf(shape: MlaShape, rowCount: number): number {
  const { nopeDim, sharedKeyDim, valueDim, latentDim } = shape;
  return (nopeDim + valueDim) * latentDim + rowCount * (nopeDim + sharedKeyDim + valueDim);
}
