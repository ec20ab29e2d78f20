/** The last block: final norm and head for the rows whose logits are wanted. */
import { compileGatherRows, gatherRows, type GatherRowsPipeline } from "./gather_rows.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { checkLogits, compileLogitsCheck, type LogitsCheckPipeline } from "./logits_check.ts";
import type { Matrix } from "./matrix.ts";
import type { Projections } from "./projection.ts";
import { RmsNorm } from "./rms_norm.ts";
import { scratch, vectorBuffer } from "./scratch.ts";
import type { Capacity, ModelShape } from "./types.ts";

export interface LogitsWeights {
  /** f32 [1, hidden]. */
  readonly norm: Matrix;
  /** [vocabulary, hidden]. */
  readonly head: Matrix;
}

interface Buffers {
  /** u32 [logitRows]. */
  readonly rows: GPUBuffer;
  /** f32 [logitRows][hidden]. */
  readonly gathered: GPUBuffer;
  readonly normed: GPUBuffer;
  /** f32 [logitRows][vocabulary]. */
  readonly logits: GPUBuffer;
  /** u32 [logitRows]. */
  readonly nonFinite: GPUBuffer;
}

export class Logits {
  #rowCount = 0;

  private constructor(
    private readonly gpu: Gpu,
    private readonly projections: Projections,
    private readonly shape: ModelShape,
    private readonly capacity: Capacity,
    private readonly norm: RmsNorm,
    private readonly gather: GatherRowsPipeline,
    private readonly check: LogitsCheckPipeline,
    private readonly buffers: Buffers,
  ) {}

  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
  ): Promise<Logits> {
    const { hiddenSize, vocabularySize } = shape;
    const { logitRows } = capacity;
    const [norm, gather, check] = await Promise.all([
      RmsNorm.create(gpu),
      compileGatherRows(gpu),
      compileLogitsCheck(gpu),
    ]);
    return new Logits(gpu, projections, shape, capacity, norm, gather, check, {
      rows: scratch(gpu, "logit rows", logitRows),
      gathered: scratch(gpu, "logits gathered", logitRows * hiddenSize),
      normed: scratch(gpu, "logits normed", logitRows * hiddenSize),
      logits: scratch(gpu, "logits", logitRows * vocabularySize),
      nonFinite: scratch(gpu, "logits non-finite", logitRows),
    });
  }

  /** f32 [rows of `setRows`][vocabulary], after `encode`. */
  get logits(): GPUBuffer {
    return this.buffers.logits;
  }

  /** u32 [rows of `setRows`]: 1 where any logit of the row is NaN or infinite, else 0. */
  get nonFinite(): GPUBuffer {
    return this.buffers.nonFinite;
  }

  /**
   * Brings the row numbers of the next `encode` to the GPU. Throws when they are too many or beyond
   * the capacity's rows. Earlier steps must have been submitted.
   */
  setRows(rows: Uint32Array): void {
    const { logitRows, rows: rowsMax } = this.capacity;
    if (rows.length > logitRows) {
      throw new Error(`choose logit rows: wanted at most ${logitRows}, found ${rows.length}`);
    }
    const outside = rows.find((row) => row >= rowsMax);
    if (outside !== undefined) {
      throw new Error(`choose logit rows: wanted rows below ${rowsMax}, found ${outside}`);
    }
    this.#rowCount = rows.length;
    this.gpu.write(this.buffers.rows, 0, rows);
  }

  /** logits[i] = head RMSNorm(residual[rows[i]]); residual f32 [..][hidden]. */
  encode(recorder: Recorder, residual: GPUBuffer, weights: LogitsWeights): void {
    const { rows, gathered, normed, logits, nonFinite } = this.buffers;
    const { hiddenSize: hidden, vocabularySize: vocabulary, normEpsilon } = this.shape;
    const count = this.#rowCount;
    gatherRows(recorder, this.gather, rows, residual, gathered, hidden, count);
    const norm = vectorBuffer(weights.norm);
    this.norm.normalize(
      recorder,
      gathered,
      hidden,
      norm,
      normed,
      hidden,
      hidden,
      count,
      normEpsilon,
    );
    this.projections.project(
      recorder,
      weights.head,
      normed,
      hidden,
      logits,
      vocabulary,
      0,
      count,
      false,
    );
    checkLogits(recorder, this.check, logits, nonFinite, vocabulary, count);
  }
}
