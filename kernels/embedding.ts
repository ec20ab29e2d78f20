/** The first block: the residual stream's rows from the tokens of a step. */
import { compileEmbed, embed, type EmbedPipeline } from "./embed.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import type { Capacity } from "./types.ts";

export class Embedding {
  private constructor(
    private readonly gpu: Gpu,
    private readonly pipeline: EmbedPipeline,
    private readonly matrix: Matrix,
    private readonly rowsMax: number,
    /** u32 [rowsMax]. */
    private readonly tokens: GPUBuffer,
  ) {}

  /** `matrix`: [vocabulary, hidden]. */
  static async create(gpu: Gpu, capacity: Capacity, matrix: Matrix): Promise<Embedding> {
    const pipeline = await compileEmbed(gpu, matrix.spec.format);
    const tokens = gpu.buffer("tokens", 4 * capacity.rows);
    return new Embedding(gpu, pipeline, matrix, capacity.rows, tokens);
  }

  /**
   * Brings the tokens of the next `encode` to the GPU. Throws when they are too many or one is
   * outside the vocabulary. Earlier steps must have been submitted.
   */
  setTokens(tokens: Uint32Array): void {
    const vocabulary = this.matrix.spec.rows;
    if (tokens.length > this.rowsMax) {
      throw new Error(`embed: wanted at most ${this.rowsMax} tokens, found ${tokens.length}`);
    }
    const outside = tokens.find((token) => token >= vocabulary);
    if (outside !== undefined) {
      throw new Error(`embed: wanted tokens below ${vocabulary}, found ${outside}`);
    }
    this.gpu.write(this.tokens, 0, tokens);
  }

  /** residual[row] = the embedding of token row; residual f32 [rowCount][hidden]. */
  encode(recorder: Recorder, residual: GPUBuffer, rowCount: number): void {
    embed(recorder, this.pipeline, this.matrix, this.tokens, residual, rowCount);
  }
}
