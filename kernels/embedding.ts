/** The first block: the residual stream's rows from the tokens of a step. */
import { compileEmbed, embed, type EmbedPipeline } from "./embed.ts";
import { compileFeedTokens, FEED, feedTokens, type FeedTokensPipeline } from "./feed_tokens.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import type { Matrix } from "./matrix.ts";
import type { Capacity } from "./types.ts";

export class Embedding {
  /** First row of the next `encode` whose token comes from the step before, or -1. */
  #firstFeed = -1;

  private constructor(
    private readonly gpu: Gpu,
    private readonly pipeline: EmbedPipeline,
    private readonly feed: FeedTokensPipeline,
    private readonly matrix: Matrix,
    private readonly rowsMax: number,
    /** u32 [rowsMax], of the next `encode`: ids, or FEED and a row of the step before. */
    readonly tokens: GPUBuffer,
  ) {}

  /** `matrix`: [vocabulary, hidden]. */
  static async create(gpu: Gpu, capacity: Capacity, matrix: Matrix): Promise<Embedding> {
    const [pipeline, feed] = await Promise.all([
      compileEmbed(gpu, matrix.spec.format),
      compileFeedTokens(gpu),
    ]);
    const tokens = gpu.buffer("tokens", 4 * capacity.rows);
    return new Embedding(gpu, pipeline, feed, matrix, capacity.rows, tokens);
  }

  /**
   * Brings the tokens of the next `encode` to the GPU; where `feeds` is not -1 the best token of
   * that logit row of the step before. Throws when they are too many or one is outside the
   * vocabulary. Earlier steps must have been submitted.
   */
  setTokens(tokens: Uint32Array, feeds: Int32Array | null): void {
    const vocabulary = this.matrix.spec.rows;
    if (tokens.length > this.rowsMax) {
      throw new Error(`embed: wanted at most ${this.rowsMax} tokens, found ${tokens.length}`);
    }
    const outside = tokens.find((token) => token >= vocabulary);
    if (outside !== undefined) {
      throw new Error(`embed: wanted tokens below ${vocabulary}, found ${outside}`);
    }
    const words = tokens.map((token, row) => {
      const feed = feeds?.[row] ?? -1;
      return feed < 0 ? token : FEED + feed;
    });
    this.gpu.write(this.tokens, 0, words);
    this.#firstFeed = feeds === null ? -1 : feeds.findIndex((feed) => feed >= 0);
  }

  /**
   * residual[row] = the embedding of token row; residual f32 [rowCount][hidden]. `best`: of the
   * step before, as in top_tokens.wgsl.
   */
  encode(recorder: Recorder, residual: GPUBuffer, rowCount: number, best: GPUBuffer): void {
    if (this.#firstFeed >= 0 && this.#firstFeed < rowCount) {
      feedTokens(recorder, this.feed, best, this.tokens, rowCount);
    }
    embed(recorder, this.pipeline, this.matrix, this.tokens, residual, rowCount);
  }
}
