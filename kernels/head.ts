/** Final norm and head for chosen rows of the residual stream. */
import { compileDecodeHead, decodeHead, type DecodeHeadPipeline } from "./decode_head.ts";
import {
  compileDecodePrepare,
  decodePrepare,
  type DecodePreparePipeline,
} from "./decode_prepare.ts";
import { activationGroups, evenFirst, type RowStorage } from "./decode_shape.ts";
import { compileGatherRows, gatherRows, type GatherRowsPipeline } from "./gather_rows.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import type { Projections } from "./projection.ts";
import { RmsNorm } from "./rms_norm.ts";
import { readWhole, scratch, vectorBuffer } from "./scratch.ts";
import type { ModelShape } from "./types.ts";

export interface HeadWeights {
  /** f32 [1, hidden]. */
  readonly norm: Matrix;
  /** [vocabulary, hidden]. */
  readonly head: Matrix;
}

export interface HeadRows {
  /** f32 [..][hidden]. */
  readonly residual: GPUBuffer;
  /** u32 [count]: rows of the residual. */
  readonly rows: GPUBuffer;
  /**
   * The same rows as activation groups [count][hidden / 32] of residual times norm, in the order
   * of the head's format, where a block has left them so, else null.
   */
  readonly groups: GPUBuffer | null;
  readonly count: number;
}

/** y f32 [count][vocabulary] of the wanted rows. */
export interface Head {
  encode(recorder: Recorder, wanted: HeadRows, y: GPUBuffer, weights: HeadWeights): void;
}

/** For a head stored like this, null for any other; at most `rowsMax` rows at a time. */
export async function createHead(
  gpu: Gpu,
  projections: Projections,
  shape: ModelShape,
  rowsMax: number,
  storage: RowStorage | null,
): Promise<Head> {
  return storage === null
    ? await FloatHead.create(gpu, projections, shape, rowsMax)
    : await FusedHead.create(gpu, shape, rowsMax, storage);
}

class FloatHead implements Head {
  private constructor(
    private readonly projections: Projections,
    private readonly shape: ModelShape,
    private readonly gather: GatherRowsPipeline,
    private readonly norm: RmsNorm,
    /** f32 [rowsMax][hidden]. */
    private readonly gathered: GPUBuffer,
    private readonly normed: GPUBuffer,
  ) {}

  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    rowsMax: number,
  ): Promise<FloatHead> {
    const [gather, norm] = await Promise.all([compileGatherRows(gpu), RmsNorm.create(gpu)]);
    const gathered = scratch(gpu, "logits gathered", rowsMax * shape.hiddenSize);
    const normed = scratch(gpu, "logits normed", rowsMax * shape.hiddenSize);
    return new FloatHead(projections, shape, gather, norm, gathered, normed);
  }

  encode(
    recorder: Recorder,
    { residual, rows, count }: HeadRows,
    y: GPUBuffer,
    { norm, head }: HeadWeights,
  ): void {
    const { hiddenSize: hidden, vocabularySize, normEpsilon } = this.shape;
    const { gathered, normed } = this;
    gatherRows(recorder, this.gather, rows, residual, gathered, hidden, count);
    this.norm.normalize(
      recorder,
      gathered,
      hidden,
      vectorBuffer(norm),
      normed,
      hidden,
      hidden,
      count,
      normEpsilon,
    );
    const { projections } = this;
    projections.project(recorder, head, normed, hidden, y, vocabularySize, 0, count, false);
  }
}

class FusedHead implements Head {
  private constructor(
    private readonly shape: ModelShape,
    private readonly storage: RowStorage,
    private readonly prepare: DecodePreparePipeline,
    private readonly head: DecodeHeadPipeline,
    /** Activation groups [rowsMax][hidden / 32]. */
    private readonly groups: GPUBuffer,
    /** f32 [rowsMax][hidden]. */
    private readonly scaled: GPUBuffer,
  ) {}

  static async create(
    gpu: Gpu,
    shape: ModelShape,
    rowsMax: number,
    storage: RowStorage,
  ): Promise<FusedHead> {
    const [prepare, head] = await Promise.all([
      compileDecodePrepare(gpu, storage.format),
      compileDecodeHead(gpu, storage, shape.hiddenSize, rowsMax),
    ]);
    const groups = activationGroups(
      gpu,
      "logits groups",
      rowsMax,
      shape.hiddenSize,
      storage.format,
    );
    const scaled = scratch(gpu, "logits scaled", rowsMax * shape.hiddenSize);
    return new FusedHead(shape, storage, prepare, head, groups, scaled);
  }

  encode(recorder: Recorder, wanted: HeadRows, y: GPUBuffer, weights: HeadWeights): void {
    if (wanted.groups === null) this.#gather(recorder, wanted, weights);
    const groups = read(wanted.groups ?? this.groups);
    const { normEpsilon } = this.shape;
    decodeHead(recorder, this.head, weights.head, groups, write(y), wanted.count, normEpsilon);
  }

  #gather(
    recorder: Recorder,
    { residual, rows, count: rowCount }: HeadRows,
    { norm }: HeadWeights,
  ): void {
    const { hiddenSize: columns } = this.shape;
    const { groups, scaled } = this;
    decodePrepare(
      recorder,
      this.prepare,
      {
        rows: read(rows),
        residual: read(residual),
        weight: readWhole(norm),
        groups: write(groups),
        scaled: write(scaled),
      },
      { columns, rowCount, evenFirst: evenFirst(this.storage.format) },
    );
  }
}
