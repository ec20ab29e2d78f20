import assert from "node:assert";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { BEST_ROW_BYTES, Logits, readCandidates, SUM_ROW_BYTES } from "../../kernels/logits.ts";
import { Projections } from "../../kernels/projection.ts";
import { matmul } from "../reference/matmul.ts";
import { randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { CAPACITY } from "./capacity.ts";
import { download, upload, withGpu } from "./harness.ts";
import { plainRows } from "../tools/logit_rows.ts";
import type { LogitRow } from "../../kernels/types.ts";
import { shapeOf } from "./model_shape.ts";
import { assertClose, assertSameBits, randomMatrix, randomRows } from "./weights.ts";

const SEED = 61;

withGpu("Logits gathers (gather_rows), norms and projects the wanted rows", async (gpu) => {
  const random = randomSource(SEED + 1);
  const shape = shapeOf({ hiddenSize: 120, vocabularySize: 777 });
  const projections = await Projections.create(gpu, CAPACITY.rows);
  await projections.prepare(["bf16"]);
  const block = await Logits.create(gpu, projections, shape, CAPACITY, null);
  const norm = randomMatrix(gpu, random, { format: "f32", rows: 1, columns: 120 });
  const head = randomMatrix(gpu, random, { format: "bf16", rows: 777, columns: 120 });
  const residual = randomRows(random, 331, 120, 120);
  const run = async (rows: readonly number[]) => {
    const recorder = new Recorder(gpu);
    block.setRows(plainRows(rows));
    const weights = { norm: norm.matrix, head: head.matrix };
    block.encode(recorder, upload(gpu, residual), weights, null);
    const logits = await download(gpu, block.logits, rows.length * 777, recorder);
    const best = await download(gpu, block.best, rows.length * BEST_ROW_BYTES / 4);
    const sums = await download(gpu, block.sums, rows.length * SUM_ROW_BYTES / 4);
    const bytes = Float32Array.of(...best, ...sums);
    new Uint32Array(bytes.buffer).set(new Uint32Array(best.buffer));
    new Uint32Array(bytes.buffer).set(new Uint32Array(sums.buffer), best.length);
    return { logits, ...readCandidates(bytes.buffer, rows.length, 777, block.maskedRows) };
  };
  const rows = [0, 3, 4, 17, 18, 19, 100, 200, 329, 330];
  const { logits, nonFinite, candidates } = await run(rows);
  const chosen = Float64Array.from(
    { length: rows.length * 120 },
    (_, i) => residual[rows[Math.floor(i / 120)]! * 120 + i % 120]!,
  );
  const normed = rmsNorm(chosen, Float32Array.from(norm.values[0]!), shape.normEpsilon);
  assertClose(logits, matmul(normed, head.values[0]!, 777), 777, "logits");
  assert.deepEqual([...nonFinite], rows.map(() => 0));
  rows.forEach((_, row) => {
    const wanted = [...logits.subarray(row * 777, (row + 1) * 777).entries()]
      .sort(([a, x], [b, y]) => y - x || a - b).slice(0, 256);
    const found = candidates.ids.subarray(row * 256, (row + 1) * 256);
    assert.deepEqual([...found], wanted.map(([id]) => id));
    assertSameBits(
      candidates.logits.slice(row * 256, (row + 1) * 256),
      Float32Array.from(wanted, ([, logit]) => logit),
      `candidates of row ${row}`,
    );
  });
  assertSameBits((await run([17])).logits, logits.slice(3 * 777, 4 * 777), "one row alone");
  residual[330 * 120 + 7] = NaN;
  const broken = await run([329, 330]);
  assert.deepEqual([...broken.nonFinite], [0, 1]);
});

withGpu(
  "setRows() refuses too many rows or edits, and numbers beyond the capacity",
  async (gpu) => {
    const projections = await Projections.create(gpu, CAPACITY.rows);
    const block = await Logits.create(gpu, projections, shapeOf({}), CAPACITY, null);
    const refuses = (rows: readonly LogitRow[], message: RegExp) =>
      assert.throws(() => block.setRows(rows), message);
    refuses(plainRows(new Array(65).fill(0)), /wanted at most 64, found 65/);
    refuses(plainRows([400]), /wanted rows below 400, found 400/);
    const edits = (ids: number[]) => ({
      ids: Uint32Array.from(ids),
      divide: new Float32Array(ids.length),
      add: new Float32Array(ids.length),
    });
    refuses([{ ...plainRows([1])[0]!, edits: edits([1 << 30]) }], /wanted edits of ids below/);
    const many = edits(new Array(65).fill(1));
    refuses([{ ...plainRows([1])[0]!, edits: many }], /wanted at most 64 edits, found 65/);
  },
);
