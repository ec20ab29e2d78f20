/**
 * logit_edits, logit_parts, logit_sums, top_tokens, feed_tokens: from a row of logits to the next
 * token.
 */
import assert from "node:assert";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileFeedTokens, feedTokens } from "../../kernels/feed_tokens.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { compileLogitEdits, editLogits } from "../../kernels/logit_edits.ts";
import { compileLogitParts, logitParts, sumParts } from "../../kernels/logit_parts.ts";
import { compileLogitSums, NO_TARGET, sumLogits } from "../../kernels/logit_sums.ts";
import {
  BEST_TOKENS,
  compileTopTokens,
  ITEM_WORDS,
  logitsOfKeys,
  partsOfPasses,
  topTokens,
} from "../../kernels/top_tokens.ts";
import { normals, randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";

const SEED = 71;
const WIDTHS = [1, 2, 255, 256, 257, 1_023, 1_024, 1_025, 4_096, 20_000, 163_840];

/** Words of a buffer, checked for writes outside of them. */
async function words(
  gpu: Gpu,
  buffer: GPUBuffer,
  count: number,
  recorder: Recorder,
): Promise<Uint32Array> {
  const output = guarded(gpu, count);
  recorder.copy(buffer, 0, output.buffer, output.offset, output.bytes);
  const floats = await takeGuarded(gpu, output, recorder);
  return new Uint32Array(floats.buffer.slice(floats.byteOffset, floats.byteOffset + 4 * count));
}

/** What logit_parts and logit_sums give, [rowCount][4]. */
async function sumsOf(
  gpu: Gpu,
  logits: Float32Array,
  wanted: Uint32Array,
  width: number,
  rowCount: number,
): Promise<Uint32Array> {
  const [part, sum] = [await compileLogitParts(gpu), await compileLogitSums(gpu)];
  const recorder = new Recorder(gpu);
  const shareWords = 4 * rowCount * logitParts(width);
  const shares = upload(gpu, new Uint32Array(shareWords).fill(0x7fc0_0000));
  const sums = upload(gpu, new Uint32Array(4 * rowCount).fill(0x7fc0_0000));
  const [source, rows] = [upload(gpu, logits), upload(gpu, wanted)];
  sumParts(recorder, part, source, rows, shares, width, rowCount);
  sumLogits(recorder, sum, shares, source, rows, sums, width, rowCount);
  return await words(gpu, sums, 4 * rowCount, recorder);
}

/** Rows with ties, both zeros, infinities below, and all equal. */
function rowsOf(width: number, count: number, seed: number): Float32Array {
  const random = randomSource(seed);
  const logits = normals(random, width * count, 4);
  for (let row = 0; row < count; row++) {
    for (let at = row * width; at < (row + 1) * width; at++) {
      if (row % 4 === 1) logits[at] = Math.round(logits[at]!);
      if (row % 4 === 2) logits[at] = random() < 0.5 ? -0 : 0;
      if (row % 4 === 3 && random() < 0.6) logits[at] = -Infinity;
    }
  }
  return logits;
}

async function best(gpu: Gpu, logits: Float32Array, width: number, rowCount: number) {
  const recorder = new Recorder(gpu);
  const pipeline = await compileTopTokens(gpu);
  const rowWords = BEST_TOKENS * ITEM_WORDS;
  const [even = 0, odd = 0] = partsOfPasses(width);
  const scratch = (parts: number) => gpu.buffer("scratch", 4 * rowCount * rowWords * parts);
  const output = upload(gpu, new Uint32Array(rowCount * rowWords).fill(0x7fc0_0000));
  const buffers = { even: scratch(even), odd: scratch(odd) };
  topTokens(recorder, pipeline, upload(gpu, logits), buffers, output, width, rowCount);
  const items = await words(gpu, output, rowCount * rowWords, recorder);
  return Array.from({ length: rowCount }, (_, row) => {
    const own = items.subarray(row * rowWords, (row + 1) * rowWords);
    const column = (index: number) => own.filter((_, at) => at % ITEM_WORDS === index);
    return { ids: column(1), logits: logitsOfKeys(column(0)) };
  });
}

withGpu("top_tokens gives the 256 best in order, of equals the lower id first", async (gpu) => {
  for (const width of WIDTHS) {
    const rowCount = width > 100_000 ? 3 : 4;
    const logits = rowsOf(width, rowCount, SEED);
    const found = await best(gpu, logits, width, rowCount);
    found.forEach(({ ids, logits: own }, row) => {
      const values = logits.subarray(row * width, (row + 1) * width);
      const wanted = Array.from(values.keys())
        .sort((a, b) => values[a] === values[b] ? a - b : values[b]! - values[a]!)
        .slice(0, BEST_TOKENS);
      const what = `width ${width}, row ${row}`;
      assert.deepEqual([...ids.subarray(0, wanted.length)], wanted, what);
      // Equal, not the same bits: -0 comes back as 0.
      assert.ok(wanted.every((id, place) => own[place] === values[id]), what);
      assert.ok(ids.subarray(wanted.length).every((id) => id === 0xffff_ffff), what);
    });
  }
});

withGpu("top_tokens gives a row the same whatever is beside it", async (gpu) => {
  const width = 4_096;
  const logits = rowsOf(width, 5, SEED + 1);
  const together = await best(gpu, logits, width, 5);
  for (let row = 0; row < 5; row++) {
    const alone = await best(gpu, logits.slice(row * width, (row + 1) * width), width, 1);
    assert.deepEqual(alone[0]!.ids, together[row]!.ids);
  }
});

withGpu("logit_sums gives both log-sum-exps, the target and the flag", async (gpu) => {
  for (const width of WIDTHS) {
    const temperatures = [0, 1, 0.3, 1.7, 1e-3];
    const rowCount = temperatures.length;
    const random = randomSource(SEED + 2);
    const logits = normals(random, width * rowCount, 5);
    const targets = temperatures.map((_, row) =>
      row === 1 ? NO_TARGET : Math.floor(random() * width)
    );
    const wanted = new Uint32Array(2 * rowCount);
    temperatures.forEach((temperature, row) => {
      new Float32Array(wanted.buffer)[2 * row] = temperature;
      wanted[2 * row + 1] = targets[row]!;
    });
    const found = await sumsOf(gpu, logits, wanted, width, rowCount);
    const floats = new Float32Array(found.buffer);
    temperatures.forEach((temperature, row) => {
      const values = logits.subarray(row * width, (row + 1) * width);
      const what = `seed ${SEED + 2}, width ${width}, row ${row}`;
      const close = (value: number, exact: number) =>
        assert.ok(Math.abs(value - exact) <= 2e-6 * Math.max(1, Math.abs(exact)), what);
      close(floats[4 * row]!, logSumExp(values, 1));
      close(floats[4 * row + 1]!, temperature === 0 ? 0 : logSumExp(values, temperature));
      const target = targets[row]!;
      assert.equal(floats[4 * row + 2], target === NO_TARGET ? 0 : values[target]!, what);
      assert.equal(found[4 * row + 3], 0, what);
    });
  }
});

function logSumExp(values: Float32Array, temperature: number): number {
  const max = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = values.reduce((total, value) => total + Math.exp((value - max) / temperature), 0);
  return max / temperature + Math.log(sum);
}

withGpu("logit_sums flags rows with NaN or an infinity, and no others", async (gpu) => {
  for (const width of [1, 255, 777]) {
    const [rowCount, nonFinite] = [7, [NaN, Infinity, -Infinity]];
    const logits = normals(randomSource(SEED + 3), rowCount * width, 1);
    logits.set([3.4e38, -3.4e38].slice(0, width), 0);
    const wanted = new Array(rowCount).fill(0);
    nonFinite.forEach((value, index) => {
      const row = 2 * index + 1;
      logits[row * width + Math.floor((width - 1) * index / 2)] = value;
      wanted[row] = 1;
    });
    const found = await sumsOf(gpu, logits, new Uint32Array(2 * rowCount), width, rowCount);
    assert.deepEqual([...found.filter((_, at) => at % 4 === 3)], wanted, `width ${width}`);
  }
});

withGpu("logit_edits divides or multiplies by the sign, then adds, and only there", async (gpu) => {
  const pipeline = await compileLogitEdits(gpu);
  const [rowCount, width] = [5, 777];
  const random = randomSource(SEED + 4);
  const logits = normals(random, rowCount * width, 3);
  const wanted = logits.slice();
  const edits: number[][] = [];
  for (let row = 0; row < rowCount; row++) {
    for (let id = row; id < width; id += 1 + row * row) {
      const [divide, add] = [Math.fround(0.5 + random() * 2), Math.fround(random() * 8 - 4)];
      edits.push([row, id, divide, add]);
      const logit = logits[row * width + id]!;
      wanted[row * width + id] = (logit > 0 ? logit / divide : logit * divide) + add;
    }
  }
  const entries = new Uint32Array(4 * edits.length);
  edits.forEach(([row, id, divide, add], at) => {
    entries.set([row!, id!], 4 * at);
    new Float32Array(entries.buffer).set([divide!, add!], 4 * at + 2);
  });
  const recorder = new Recorder(gpu);
  const buffer = upload(gpu, logits);
  editLogits(recorder, pipeline, upload(gpu, entries), buffer, edits.length, width);
  const found = new Float32Array((await words(gpu, buffer, rowCount * width, recorder)).buffer);
  found.forEach((value, at) => {
    // A division may round twice.
    const bound = value === logits[at] ? 0 : 2e-6 * Math.max(1, Math.abs(wanted[at]!));
    assert.ok(Math.abs(value - wanted[at]!) <= bound, `seed ${SEED + 4}, place ${at}`);
  });
});

withGpu("feed_tokens replaces the tokens that the step before chose", async (gpu) => {
  const pipeline = await compileFeedTokens(gpu);
  const rowCount = 70;
  const tokens = Uint32Array.from({ length: rowCount }, (_, row) => 1_000 + row);
  const feeds = Int32Array.from({ length: rowCount }, (_, row) => row % 3 === 0 ? row / 3 % 4 : -1);
  const items = new Uint32Array(4 * BEST_TOKENS * ITEM_WORDS).fill(9);
  for (let row = 0; row < 4; row++) items[row * BEST_TOKENS * ITEM_WORDS + 1] = 40 + row;
  const recorder = new Recorder(gpu);
  const buffer = upload(gpu, tokens);
  feedTokens(recorder, pipeline, upload(gpu, feeds), upload(gpu, items), buffer, rowCount);
  const found = await words(gpu, buffer, rowCount, recorder);
  assert.deepEqual([...found], [...tokens].map((token, row) => row % 3 ? token : 40 + row / 3 % 4));
});
