/** The first block: the residual stream's rows from the tokens of a step. */
import { compileEmbed, embed, type EmbedPipeline } from "./embed.ts";
import { compileFeedTokens, feedTokens, type FeedTokensPipeline } from "./feed_tokens.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import type { Capacity } from "./types.ts";

export class Embedding {
  private constructor(
    private readonly gpu: Gpu,
    private readonly pipeline: EmbedPipeline,
    private readonly feed: FeedTokensPipeline,
    private readonly matrix: Matrix,
    private readonly rowsMax: number,
    /** u32 [rowsMax]. */
    private readonly tokens: GPUBuffer,
    /** u32 [rowsMax]. */
    private readonly feeds: GPUBuffer,
  ) {}

  /** `matrix`: [vocabulary, hidden]. */
  static async create(gpu: Gpu, capacity: Capacity, matrix: Matrix): Promise<Embedding> {
    const [pipeline, feed] = await Promise.all([
      compileEmbed(gpu, matrix.spec.format),
      compileFeedTokens(gpu),
    ]);
    const tokens = gpu.buffer("tokens", 4 * capacity.rows);
    const feeds = gpu.buffer("feeds", 4 * capacity.rows);
    return new Embedding(gpu, pipeline, feed, matrix, capacity.rows, tokens, feeds);
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

  /**
   * Puts the best tokens of the step before where `feeds` names one of its logit rows (-1: none):
   * `best` as in top_tokens.wgsl.
   */
  feedTokens(recorder: Recorder, feeds: Int32Array, best: GPUBuffer): void {
    this.gpu.write(this.feeds, 0, feeds);
    feedTokens(recorder, this.feed, this.feeds, best, this.tokens, feeds.length);
  }

  /** residual[row] = the embedding of token row; residual f32 [rowCount][hidden]. */
  encode(recorder: Recorder, residual: GPUBuffer, rowCount: number): void {
    embed(recorder, this.pipeline, this.matrix, this.tokens, residual, rowCount);
  }
}
