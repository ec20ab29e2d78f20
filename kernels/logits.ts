/** The last block: final norm and head for the wanted rows, their edits, and the best of them. */
import type { RowStorage } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import type { Recorder } from "./gpu/recorder.ts";
import { createHead, type Head, type HeadWeights } from "./head.ts";
import {
  compileLogitEdits,
  EDIT_WORDS,
  editLogits,
  type LogitEditsPipeline,
} from "./logit_edits.ts";
import {
  compileLogitMasks,
  type LogitMasksPipeline,
  MASKED,
  maskLogits,
  maskWords,
} from "./logit_masks.ts";
import {
  compileLogitParts,
  logitParts,
  type LogitPartsPipeline,
  logitSubsets,
  sumParts,
} from "./logit_parts.ts";
import {
  compileLogitSums,
  type LogitSumsPipeline,
  NO_TARGET,
  SUM_WORDS,
  sumLogits,
} from "./logit_sums.ts";
import type { Projections } from "./projection.ts";
import { scratch } from "./scratch.ts";
import {
  BEST_TOKENS,
  compileTopTokens,
  ITEM_WORDS,
  logitsOfKeys,
  topTokens,
  type TopTokensPipeline,
} from "./top_tokens.ts";
import type { Candidates, Capacity, LogitRow, ModelShape } from "./types.ts";

interface Buffers {
  /** u32 [logitRows]. */
  readonly rows: GPUBuffer;
  /** f32 [logitRows][vocabulary]. */
  readonly logits: GPUBuffer;
  /** [logitEdits] of row, id, divide, add. */
  readonly edits: GPUBuffer;
  /** u32 [logitRows]: the row of each mask. */
  readonly maskRows: GPUBuffer;
  /** See logit_masks.wgsl. */
  readonly masks: GPUBuffer;
  /** [logitRows] of temperature, target. */
  readonly wanted: GPUBuffer;
  /** See logit_parts.wgsl. */
  readonly shares: GPUBuffer;
  readonly maxima: GPUBuffer;
  /** See logit_sums.wgsl. */
  readonly sums: GPUBuffer;
  /** [logitRows][256] of key, id: of the last step until the next one's logits are computed. */
  readonly best: GPUBuffer;
}

interface Pipelines {
  readonly edit: LogitEditsPipeline;
  readonly mask: LogitMasksPipeline;
  readonly part: LogitPartsPipeline;
  readonly sum: LogitSumsPipeline;
  readonly top: TopTokensPipeline;
}

/** Bytes of one row's candidates, and of its sums. */
export const BEST_ROW_BYTES = 4 * BEST_TOKENS * ITEM_WORDS;
export const SUM_ROW_BYTES = 4 * SUM_WORDS;

export class Logits {
  readonly #maskStaging: Uint32Array<ArrayBuffer>;
  #rows: readonly LogitRow[] = [];
  #editCount = 0;
  #maskedRows: readonly number[] = [];

  private constructor(
    private readonly gpu: Gpu,
    private readonly shape: ModelShape,
    private readonly capacity: Capacity,
    private readonly head: Head,
    private readonly pipelines: Pipelines,
    private readonly buffers: Buffers,
  ) {
    this.#maskStaging = new Uint32Array(capacity.logitRows * maskWords(shape.vocabularySize));
  }

  static async create(
    gpu: Gpu,
    projections: Projections,
    shape: ModelShape,
    capacity: Capacity,
    headStorage: RowStorage | null,
  ): Promise<Logits> {
    const { vocabularySize } = shape;
    const { logitRows, logitEdits } = capacity;
    const [head, edit, mask, part, sum, top] = await Promise.all([
      createHead(gpu, projections, shape, logitRows, headStorage),
      compileLogitEdits(gpu),
      compileLogitMasks(gpu),
      compileLogitParts(gpu),
      compileLogitSums(gpu),
      compileTopTokens(gpu),
    ]);
    const items = logitRows * BEST_TOKENS * ITEM_WORDS;
    const pipelines = { edit, mask, part, sum, top };
    return new Logits(gpu, shape, capacity, head, pipelines, {
      rows: scratch(gpu, "logit rows", logitRows),
      logits: scratch(gpu, "logits", logitRows * vocabularySize),
      edits: scratch(gpu, "logit edits", logitEdits * EDIT_WORDS),
      maskRows: scratch(gpu, "logit mask rows", logitRows),
      masks: scratch(gpu, "logit masks", logitRows * maskWords(vocabularySize)),
      wanted: scratch(gpu, "logits wanted", 2 * logitRows),
      shares: scratch(gpu, "logit parts", SUM_WORDS * logitRows * logitParts(vocabularySize)),
      maxima: scratch(gpu, "logit maxima", logitRows * logitSubsets(vocabularySize)),
      sums: scratch(gpu, "logit sums", SUM_WORDS * logitRows),
      best: scratch(gpu, "best tokens", items),
    });
  }

  /** f32 [rows of `setRows`][vocabulary], after `encode`. */
  get logits(): GPUBuffer {
    return this.buffers.logits;
  }

  /** [rows of `setRows`] of sums and flag, see logit_sums.wgsl, after `encode`. */
  get sums(): GPUBuffer {
    return this.buffers.sums;
  }

  /** [rows of `setRows`][256] of key and id, see top_tokens.wgsl, until the next `encode`. */
  get best(): GPUBuffer {
    return this.buffers.best;
  }

  /**
   * Brings what the next `encode` is to do to the GPU. Throws when there are too many rows or
   * edits, or a number is beyond the capacity or the vocabulary. Earlier steps must have been
   * submitted.
   */
  setRows(rows: readonly LogitRow[]): void {
    const { logitRows, rows: rowsMax, logitEdits } = this.capacity;
    const { vocabularySize } = this.shape;
    const fail = (wanted: string, found: number) => {
      throw new Error(`choose logit rows: wanted ${wanted}, found ${found}`);
    };
    if (rows.length > logitRows) fail(`at most ${logitRows}`, rows.length);
    const editCount = rows.reduce((sum, { edits }) => sum + (edits?.ids.length ?? 0), 0);
    if (editCount > logitEdits) fail(`at most ${logitEdits} edits`, editCount);
    const wanted = new ArrayBuffer(8 * rows.length);
    const [temperatures, targets] = [new Float32Array(wanted), new Uint32Array(wanted)];
    const words = new Uint32Array(EDIT_WORDS * editCount);
    const floats = new Float32Array(words.buffer);
    let at = 0;
    for (const [index, { row, edits, temperature, target }] of rows.entries()) {
      if (row >= rowsMax) fail(`rows below ${rowsMax}`, row);
      temperatures[2 * index] = temperature;
      targets[2 * index + 1] = target ?? NO_TARGET;
      edits?.ids.forEach((id, edit) => {
        if (id >= vocabularySize) fail(`edits of ids below ${vocabularySize}`, id);
        words[at] = index;
        words[at + 1] = id;
        floats[at + 2] = edits.divide[edit]!;
        floats[at + 3] = edits.add[edit]!;
        at += EDIT_WORDS;
      });
    }
    this.#rows = rows;
    this.#maskedRows = [];
    this.#editCount = editCount;
    this.gpu.write(this.buffers.rows, 0, Uint32Array.from(rows, ({ row }) => row));
    this.gpu.write(this.buffers.wanted, 0, targets);
    this.gpu.write(this.buffers.edits, 0, words);
  }

  /** Whether any row of `setRows` has a mask to be taken. */
  get hasMasks(): boolean {
    return this.#rows.some(({ mask }) => mask !== null);
  }

  /** Rows of `setRows` that are masked, after `takeMasks`. */
  get maskedRows(): readonly number[] {
    return this.#maskedRows;
  }

  /**
   * Has the masks of `setRows` computed and brings them to the GPU, for the next `encode`. Throws
   * when one has a wrong size.
   */
  takeMasks(): void {
    const words = maskWords(this.shape.vocabularySize);
    const masked: number[] = [];
    for (const [index, row] of this.#rows.entries()) {
      const mask = row.mask?.() ?? null;
      if (mask === null) continue;
      if (mask.length !== words) {
        throw new Error(`mask logits: wanted ${words} words, found ${mask.length}`);
      }
      this.#maskStaging.set(mask, masked.length * words);
      masked.push(index);
    }
    this.#maskedRows = masked;
    this.gpu.write(this.buffers.maskRows, 0, Uint32Array.from(masked));
    this.gpu.write(this.buffers.masks, 0, this.#maskStaging, 4 * masked.length * words);
  }

  /**
   * logits[i] = head RMSNorm(residual[rows[i]]), edited, masked; residual f32 [..][hidden].
   * `last`: what `DecodeBlocks.last` has of the rows from `rowStart` on, null without it.
   */
  encode(
    recorder: Recorder,
    residual: GPUBuffer,
    weights: HeadWeights,
    last: { readonly groups: GPUBuffer; readonly rowStart: number } | null,
  ): void {
    const { rows, logits, edits, maskRows, masks, wanted } = this.buffers;
    const { shares, maxima, sums, best } = this.buffers;
    const { edit, mask, part, sum, top } = this.pipelines;
    const { vocabularySize: vocabulary } = this.shape;
    const count = this.#rows.length;
    const isLast = last !== null &&
      this.#rows.every(({ row }, index) => row === last.rowStart + index);
    const from = { residual, rows, groups: isLast ? last.groups : null, count };
    this.head.encode(recorder, from, logits, weights);
    editLogits(recorder, edit, edits, logits, this.#editCount, vocabulary);
    maskLogits(recorder, mask, maskRows, masks, logits, vocabulary, this.#maskedRows.length);
    sumParts(recorder, part, logits, wanted, shares, maxima, vocabulary, count);
    sumLogits(recorder, sum, shares, logits, wanted, sums, vocabulary, count);
    topTokens(recorder, top, logits, maxima, best, vocabulary, count);
  }
}

/**
 * Candidates and non-finite flags from the bytes of `best` and `sums` of `count` rows, of which
 * `maskedRows` are masked.
 */
export function readCandidates(
  bytes: ArrayBuffer,
  count: number,
  vocabularySize: number,
  maskedRows: readonly number[],
): { readonly candidates: Candidates; readonly nonFinite: Uint8Array } {
  const best = Math.min(BEST_TOKENS, vocabularySize);
  const items = new Uint32Array(bytes, 0, count * BEST_TOKENS * ITEM_WORDS);
  const [keys, ids] = [new Uint32Array(count * best), new Uint32Array(count * best)];
  for (let row = 0; row < count; row++) {
    for (let place = 0; place < best; place++) {
      const at = ITEM_WORDS * (row * BEST_TOKENS + place);
      keys[row * best + place] = items[at]!;
      ids[row * best + place] = items[at + 1]!;
    }
  }
  const sums = new Float32Array(bytes, count * BEST_ROW_BYTES, count * SUM_WORDS);
  const flags = new Uint32Array(bytes, count * BEST_ROW_BYTES, count * SUM_WORDS);
  const column = (index: number) =>
    Float32Array.from({ length: count }, (_, row) => sums[row * SUM_WORDS + index]!);
  const logits = logitsOfKeys(keys);
  const [logSumExp, scaledLogSumExp, targets] = [column(0), column(1), column(2)];
  for (const row of maskedRows) {
    showMasked(logits.subarray(row * best, (row + 1) * best));
    showMasked(targets.subarray(row, row + 1));
    if (logits[row * best] === -Infinity) logSumExp[row] = scaledLogSumExp[row] = -Infinity;
  }
  return {
    candidates: { count: best, ids, logits, logSumExp, scaledLogSumExp, targets },
    nonFinite: Uint8Array.from({ length: count }, (_, row) => flags[row * SUM_WORDS + 3]!),
  };
}

/** Makes masked logits -Infinity, in place. */
export function showMasked(logits: Float32Array): void {
  for (let at = 0; at < logits.length; at++) if (logits[at] === MASKED) logits[at] = -Infinity;
}
