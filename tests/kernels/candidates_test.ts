/**
 * logit_edits, logit_parts, logit_sums, top_tokens, feed_tokens: from a row of logits to the next
 * token.
 */
import assert from "node:assert";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileFeedTokens, FEED, feedTokens } from "../../kernels/feed_tokens.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { compileLogitEdits, editLogits } from "../../kernels/logit_edits.ts";
import {
  compileLogitParts,
  logitParts,
  logitSubsets,
  sumParts,
} from "../../kernels/logit_parts.ts";
import { MASKED } from "../../kernels/logit_masks.ts";
import { compileLogitSums, NO_TARGET, sumLogits } from "../../kernels/logit_sums.ts";
import {
  BEST_TOKENS,
  compileTopTokens,
  ITEM_WORDS,
  logitsOfKeys,
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
  const maxima = gpu.buffer("maxima", 4 * rowCount * logitSubsets(width));
  sumParts(recorder, part, source, rows, shares, maxima, width, rowCount);
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
  const scratch = (words: number) => gpu.buffer("scratch", 4 * rowCount * words);
  const maxima = upload(gpu, new Uint32Array(rowCount * logitSubsets(width)).fill(0xffff_ffff));
  const [source, wanted] = [upload(gpu, logits), scratch(2)];
  const part = await compileLogitParts(gpu);
  const shares = scratch(4 * logitParts(width));
  sumParts(recorder, part, source, wanted, shares, maxima, width, rowCount);
  const output = upload(gpu, new Uint32Array(rowCount * rowWords).fill(0x7fc0_0000));
  topTokens(recorder, pipeline, source, maxima, output, width, rowCount);
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

/** Rows whose best are many in few subsets, or equal, or hard to tell apart. */
const HARD: Readonly<Record<string, (id: number, width: number) => number>> = {
  equal: () => 3,
  masked: () => MASKED,
  "all but a few masked": (id) => id % 1_009 === 7 ? id % 13 : MASKED,
  "all but one masked": (id, width) => id === width - 1 ? -5 : MASKED,
  ascending: (id) => id / 1_024,
  descending: (id) => -id / 1_024,
  "one block": (id, width) => id >= width / 2 && id < width / 2 + 300 ? 50 + id % 7 : id % 5,
  "one subset": (id, width) => Math.abs(id - width / 2) < 9 ? 50 : -(id % 3),
  "neighbouring floats": (id) => 1 + 2 ** -23 * ((id * 7_919) % 1_031),
  "255 above many equal": (id) => id % 631 === 5 && id < 631 * 255 ? 2 : 1,
  "256 above many equal": (id) => id % 631 === 5 && id < 631 * 256 ? 2 : 1,
  "1,500 equal ones": (id) => id % 109 === 0 ? 9 : -id,
  "two ties": (id) => id % 800 === 0 ? 9 : id % 3 === 0 ? 8 : 7,
  "both zeros": (id) => id % 2 === 0 ? -0 : 0,
  "NaN among others": (id) => id % 500 === 3 ? NaN : id % 11,
  NaN: () => NaN,
  "infinities": (id) => id % 3 === 0 ? Infinity : id % 3 === 1 ? -Infinity : 0,
  "every exponent": (id) => (id % 2 === 0 ? 1 : -1) * 2 ** (id % 250 - 125),
};

withGpu("top_tokens is exact where the best are equal, side by side or not finite", async (gpu) => {
  for (const width of [200, 512, 2_049, 30_000, 163_840]) {
    const names = Object.keys(HARD);
    const logits = new Float32Array(names.length * width);
    names.forEach((name, row) => {
      for (let id = 0; id < width; id++) logits[row * width + id] = HARD[name]!(id, width);
    });
    const keys = new Uint32Array(logits.buffer).map((word) => {
      const bits = word === 0x8000_0000 ? 0 : word;
      return bits >>> 31 === 1 ? ~bits : bits | 0x8000_0000;
    });
    const found = await best(gpu, logits, width, names.length);
    names.forEach((name, row) => {
      const own = keys.subarray(row * width, (row + 1) * width);
      const wanted = Array.from(own.keys()).sort((a, b) => own[b]! - own[a]! || a - b);
      const ids = [...wanted, ...new Array(BEST_TOKENS).fill(0xffff_ffff)].slice(0, BEST_TOKENS);
      assert.deepEqual([...found[row]!.ids], ids, `${name}, width ${width}`);
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
  const fed = tokens.map((token, row) => row % 3 === 0 ? FEED + row / 3 % 4 : token);
  const items = new Uint32Array(4 * BEST_TOKENS * ITEM_WORDS).fill(9);
  for (let row = 0; row < 4; row++) items[row * BEST_TOKENS * ITEM_WORDS + 1] = 40 + row;
  const recorder = new Recorder(gpu);
  const buffer = upload(gpu, fed);
  feedTokens(recorder, pipeline, upload(gpu, items), buffer, rowCount);
  const found = await words(gpu, buffer, rowCount, recorder);
  assert.deepEqual([...found], [...tokens].map((token, row) => row % 3 ? token : 40 + row / 3 % 4));
});
