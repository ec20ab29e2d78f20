/** The first half of feed-forward blocks for sequences with one row: experts chosen, and h. */
import { decodeChoose } from "./decode_choose.ts";
import { decodeExperts } from "./decode_experts.ts";
import {
  type DecodeBuffers,
  type DecodePipelines,
  type ExpertCounts,
  severalFor,
  type SeveralPipelines,
} from "./decode_parts.ts";
import { decodeUp, type DecodeUpPipeline } from "./decode_up.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import { groupTokens, tileLimit } from "./group_tokens.ts";
import type { Matrix } from "./matrix.ts";
import { readWhole } from "./scratch.ts";
import type { ModelShape, MoeShape } from "./types.ts";

export class DecodeUpBlock {
  constructor(
    private readonly shape: ModelShape,
    private readonly counts: ExpertCounts,
    private readonly pipelines: DecodePipelines,
    private readonly buffers: DecodeBuffers,
    /** u32 of the MoE block: [MoE layers][stackSize]. */
    private readonly expertUse: GPUBuffer,
    private readonly even: number,
  ) {}

  /** h of rows [0, rowCount); `vector`: any, f32. */
  dense(recorder: Recorder, rowCount: number, gateUp: Matrix, vector: Matrix): void {
    const several = severalFor(this.pipelines, rowCount);
    if (several === null) {
      return this.#each(recorder, rowCount, this.pipelines.denseUp, gateUp, vector, null, 0);
    }
    const itemCount = Math.ceil(rowCount / several.denseUp.itemRows);
    this.#items(recorder, rowCount, several.denseUp, gateUp, { choices: 1, itemCount });
  }

  /** The choice of experts and h of each for rows [0, rowCount); `useOffset`: of the layer. */
  moe(
    recorder: Recorder,
    rowCount: number,
    gateUp: Matrix,
    routerBias: Matrix,
    useOffset: number,
  ): void {
    const several = severalFor(this.pipelines, rowCount);
    if (several === null) {
      const { shape: { moe }, pipelines: { moeUp } } = this;
      return this.#each(recorder, rowCount, moeUp, gateUp, routerBias, moe, useOffset);
    }
    this.#choose(recorder, rowCount, several, routerBias, useOffset);
    const { choices, stackSize } = this.counts;
    const itemCount = tileLimit(rowCount * choices, stackSize, several.moeUp.itemRows);
    this.#items(recorder, rowCount, several.moeUp, gateUp, { choices, itemCount });
  }

  /** Each row by itself. `bias`: of the router; any vector of a dense block. */
  #each(
    recorder: Recorder,
    rowCount: number,
    pipeline: DecodeUpPipeline,
    gateUp: Matrix,
    bias: Matrix,
    moe: MoeShape | null,
    useOffset: number,
  ): void {
    const { x, limbs, h, chosen } = this.buffers;
    decodeUp(
      recorder,
      pipeline,
      gateUp,
      {
        x: read(x),
        limbs: read(limbs),
        bias: readWhole(bias),
        groups: write(h),
        chosen: write(chosen),
        expertUse: write(this.expertUse),
      },
      moe,
      {
        rowCount,
        choices: moe === null ? 1 : this.counts.choices,
        useOffset,
        epsilon: this.shape.normEpsilon,
        evenFirst: this.even,
      },
    );
  }

  /** The choice, and the rows by experts. */
  #choose(
    recorder: Recorder,
    rowCount: number,
    { choose, group, moeUp }: SeveralPipelines,
    bias: Matrix,
    useOffset: number,
  ): void {
    const { x, limbs, chosen, grouping } = this.buffers;
    const { choices } = this.counts;
    const { moe, hiddenSize: columns, normEpsilon: epsilon } = this.shape;
    decodeChoose(
      recorder,
      choose,
      {
        x: read(x),
        limbs: read(limbs),
        bias: readWhole(bias),
        chosen: write(chosen),
        experts: write(grouping.experts),
      },
      moe,
      { rowCount, columns, choices, epsilon },
    );
    const all = { ...grouping, expertUse: this.expertUse, useOffset };
    groupTokens(recorder, group, all, rowCount * choices, moeUp.itemRows);
  }

  #items(
    recorder: Recorder,
    rowCount: number,
    pipeline: SeveralPipelines["moeUp"],
    gateUp: Matrix,
    counts: { readonly choices: number; readonly itemCount: number },
  ): void {
    const { x, h, grouping } = this.buffers;
    const buffers = {
      x: read(x),
      order: read(grouping.order),
      items: read(grouping.tiles),
      groups: write(h),
    };
    const sizes = { rowCount, epsilon: this.shape.normEpsilon, evenFirst: this.even };
    decodeExperts(recorder, pipeline, gateUp, buffers, { ...sizes, ...counts });
  }
}
