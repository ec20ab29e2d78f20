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

/** y f32 [rowCount][vocabulary] of the rows u32 [rowCount] of the residual f32 [..][hidden]. */
export interface Head {
  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    rows: GPUBuffer,
    y: GPUBuffer,
    rowCount: number,
    weights: HeadWeights,
  ): void;
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
    residual: GPUBuffer,
    rows: GPUBuffer,
    y: GPUBuffer,
    count: number,
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

  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    rows: GPUBuffer,
    y: GPUBuffer,
    rowCount: number,
    { norm, head }: HeadWeights,
  ): void {
    const { hiddenSize: columns, normEpsilon } = this.shape;
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
      { columns, rowStart: 0, rowCount, gather: true, evenFirst: evenFirst(this.storage.format) },
    );
    decodeHead(recorder, this.head, head, read(groups), write(y), rowCount, normEpsilon);
  }
}
