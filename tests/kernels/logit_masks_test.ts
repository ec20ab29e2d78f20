/** logit_masks, and what the kernels behind it make of masked rows. */
import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileLogitMasks, MASKED, maskLogits, maskWords } from "../../kernels/logit_masks.ts";
import {
  compileLogitParts,
  logitParts,
  logitSubsets,
  sumParts,
} from "../../kernels/logit_parts.ts";
import { compileLogitSums, sumLogits } from "../../kernels/logit_sums.ts";
import { Logits, readCandidates, showMasked } from "../../kernels/logits.ts";
import { Projections } from "../../kernels/projection.ts";
import { BEST_TOKENS, compileTopTokens, ITEM_WORDS, topTokens } from "../../kernels/top_tokens.ts";
import type { LogitRow } from "../../kernels/types.ts";
import { normals, randomSource } from "../reference/random.ts";
import { plainRows } from "../tools/logit_rows.ts";
import { CAPACITY } from "./capacity.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { shapeOf } from "./model_shape.ts";
import { randomMatrix, randomRows } from "./weights.ts";

const SEED = 91;
const WIDTHS = [1, 31, 32, 33, 777, 2_049, 20_000];

/** Rows [rowCount][width] masked, and the candidates of them. */
async function run(
  gpu: Gpu,
  logits: Float32Array,
  masks: ReadonlyMap<number, Uint32Array>,
  temperature: number,
  width: number,
) {
  const rowCount = logits.length / width;
  const recorder = new Recorder(gpu);
  const output = guarded(gpu, logits.length);
  gpu.write(output.buffer, output.offset, logits);
  const masked = gpu.buffer("logits", 4 * logits.length);
  const rows = [...masks.keys()];
  const bits = Uint32Array.from([...masks.values()].flatMap((mask) => [...mask]));
  const mask = await compileLogitMasks(gpu);
  const source = upload(gpu, logits);
  const [places, words] = [upload(gpu, Uint32Array.from(rows)), upload(gpu, bits)];
  maskLogits(recorder, mask, places, words, source, width, rows.length);
  recorder.copy(source, 0, output.buffer, output.offset, output.bytes);
  recorder.copy(source, 0, masked, 0, output.bytes);
  const wanted = new Float32Array(2 * rowCount).map((_, at) => at % 2 === 0 ? temperature : 0);
  const wants = upload(gpu, wanted);
  const shares = gpu.buffer("shares", 16 * rowCount * logitParts(width));
  const sums = gpu.buffer("sums", 16 * rowCount);
  const maxima = gpu.buffer("maxima", 4 * rowCount * logitSubsets(width));
  const part = await compileLogitParts(gpu);
  sumParts(recorder, part, masked, wants, shares, maxima, width, rowCount);
  sumLogits(recorder, await compileLogitSums(gpu), shares, masked, wants, sums, width, rowCount);
  const bestWords = rowCount * BEST_TOKENS * ITEM_WORDS;
  const best = gpu.buffer("best", 4 * bestWords);
  topTokens(recorder, await compileTopTokens(gpu), masked, maxima, best, width, rowCount);
  const found = await takeGuarded(gpu, output, recorder);
  const result = new Uint32Array(bestWords + 4 * rowCount);
  result.set(new Uint32Array((await download(gpu, best, bestWords)).buffer));
  result.set(new Uint32Array((await download(gpu, sums, 4 * rowCount)).buffer), bestWords);
  return { found, ...readCandidates(result.buffer, rowCount, width, rows) };
}

/** In f64: what of a row may come, best first, and the log-sum-exp at a temperature. */
function reference(values: Float32Array, isAllowed: (id: number) => boolean, temperature: number) {
  const ids = [...values.keys()].filter(isAllowed)
    .sort((a, b) => values[b]! - values[a]! || a - b);
  const max = ids.length > 0 ? values[ids[0]!]! : -Infinity;
  const sum = ids.reduce((total, id) => total + Math.exp((values[id]! - max) / temperature), 0);
  return { ids, logSumExp: ids.length > 0 ? max / temperature + Math.log(sum) : -Infinity };
}

withGpu(
  "logit_masks leaves what may come, and best tokens and sums are of it alone",
  async (gpu) => {
    for (const width of WIDTHS) {
      for (const temperature of [0, 0.3, 1e-3]) {
        const random = randomSource(SEED + width);
        const rowCount = 5;
        const logits = normals(random, width * rowCount, 5);
        const only = Math.floor(random() * width);
        // Row 1 has no mask, row 3 nothing but one token, row 4 nothing at all.
        const isAllowed = (row: number, id: number) =>
          row === 1 || row < 3 && (id * 2_654_435_761 >>> 7) % (row + 2) === 0 ||
          row === 3 && id === only;
        const masks = new Map([4, 0, 2, 3].map((row) => {
          const mask = new Uint32Array(maskWords(width));
          for (let id = 0; id < width; id++) {
            if (isAllowed(row, id)) mask[id >>> 5]! |= 1 << (id & 31);
          }
          // Bits behind the vocabulary mean nothing.
          if (width % 32 > 0 && row !== 4) mask[mask.length - 1]! |= -1 << (width % 32);
          return [row, mask];
        }));
        const result = await run(gpu, logits, masks, temperature, width);
        assert.deepEqual([...result.nonFinite], new Array(rowCount).fill(0));
        for (let row = 0; row < rowCount; row++) {
          const what = `width ${width}, temperature ${temperature}, row ${row}`;
          const values = logits.subarray(row * width, (row + 1) * width);
          const found = result.found.slice(row * width, (row + 1) * width);
          const holds = (id: number) => isAllowed(row, id);
          assert.ok(found.every((value, id) => value === (holds(id) ? values[id]! : MASKED)), what);
          showMasked(found);
          assert.ok(found.every((value, id) => (value === -Infinity) === !holds(id)), what);
          const { ids, logSumExp } = reference(values, holds, 1);
          const { count, logSumExp: sums, scaledLogSumExp: scaled } = result.candidates;
          const best = result.candidates.ids.subarray(row * count, (row + 1) * count);
          const own = result.candidates.logits.subarray(row * count, (row + 1) * count);
          const kept = Math.min(count, ids.length);
          assert.deepEqual([...best.subarray(0, kept)], ids.slice(0, kept), what);
          assert.ok(
            own.every((logit, place) =>
              logit === (place < kept ? values[ids[place]!]! : -Infinity)
            ),
            what,
          );
          const close = (value: number, exact: number) =>
            assert.ok(
              value === exact || Math.abs(value - exact) <= 2e-6 * Math.max(1, Math.abs(exact)),
              `${what}: wanted ${exact}, found ${value}`,
            );
          close(sums[row]!, logSumExp);
          const empty = ids.length === 0 ? -Infinity : 0;
          close(
            scaled[row]!,
            temperature === 0 ? empty : reference(values, holds, temperature).logSumExp,
          );
        }
      }
    }
  },
);

withGpu("a NaN or an infinity is found out where it is masked, too", async (gpu) => {
  const width = 777;
  for (const value of [NaN, Infinity, -Infinity]) {
    const logits = normals(randomSource(SEED), 2 * width, 1);
    logits[width + 40] = value;
    const mask = new Uint32Array(maskWords(width));
    mask[0] = 6;
    const masks = new Map([[0, mask], [1, mask]]);
    const { nonFinite } = await run(gpu, logits, masks, 1, width);
    assert.deepEqual([...nonFinite], [0, 1], `${value}`);
  }
});

withGpu("Logits takes each mask once and forgets it with the next rows", async (gpu) => {
  const random = randomSource(SEED + 1);
  const shape = shapeOf({ hiddenSize: 24, vocabularySize: 77 });
  const projections = await Projections.create(gpu, CAPACITY.rows);
  await projections.prepare(["f32"]);
  const block = await Logits.create(gpu, projections, shape, CAPACITY, null);
  const norm = randomMatrix(gpu, random, { format: "f32", rows: 1, columns: 24 });
  const head = randomMatrix(gpu, random, { format: "f32", rows: 77, columns: 24 });
  const residual = upload(gpu, randomRows(random, 4, 24, 24));
  const weights = { norm: norm.matrix, head: head.matrix };
  const logitsOf = async (rows: readonly LogitRow[]) => {
    const recorder = new Recorder(gpu);
    block.setRows(rows);
    if (block.hasMasks) block.takeMasks();
    block.encode(recorder, residual, weights, null);
    return await download(gpu, block.logits, rows.length * 77, recorder);
  };
  const rows = plainRows([0, 1, 3]);
  const free = await logitsOf(rows);
  let calls = 0;
  const only = (id: number) => () => {
    calls++;
    const mask = new Uint32Array(3);
    mask[id >>> 5] = 1 << (id & 31);
    return mask;
  };
  const masked = await logitsOf([
    { ...rows[0]!, mask: only(70) },
    { ...rows[1]!, mask: () => null },
    { ...rows[2]!, mask: only(0) },
  ]);
  assert.equal(calls, 2);
  assert.deepEqual(block.maskedRows, [0, 2]);
  masked.forEach((value, at) => {
    const [row, id] = [Math.floor(at / 77), at % 77];
    assert.equal(value, row === 1 || id === (row === 0 ? 70 : 0) ? free[at] : MASKED);
  });
  assert.deepEqual(await logitsOf(rows), free);
  assert.deepEqual(block.maskedRows, []);
  block.setRows([{ ...rows[0]!, mask: () => new Uint32Array(2) }]);
  assert.throws(() => block.takeMasks(), /mask logits: wanted 3 words, found 2/);
});
