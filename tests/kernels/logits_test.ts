import assert from "node:assert";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { Logits } from "../../kernels/logits.ts";
import { Projections } from "../../kernels/projection.ts";
import { checkLogits, compileLogitsCheck } from "../../kernels/logits_check.ts";
import { matmul } from "../reference/matmul.ts";
import { randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { CAPACITY } from "./capacity.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { shapeOf } from "./model_shape.ts";
import { assertClose, assertSameBits, randomMatrix, randomRows } from "./weights.ts";

const SEED = 61;

withGpu("logits_check flags rows with NaN or an infinity, and no others", async (gpu) => {
  const pipeline = await compileLogitsCheck(gpu);
  for (const width of [1, 255, 777]) {
    const [rowCount, nonFinite] = [7, [NaN, Infinity, -Infinity]];
    const logits = randomRows(randomSource(SEED), rowCount, width, width);
    logits.set([3.4e38, -3.4e38].slice(0, width), 0);
    const wanted = new Uint32Array(rowCount);
    nonFinite.forEach((value, index) => {
      const row = 2 * index + 1;
      logits[row * width + Math.floor((width - 1) * index / 2)] = value;
      wanted[row] = 1;
    });
    const output = guarded(gpu, rowCount);
    const flags = gpu.buffer("flags", output.bytes);
    gpu.write(flags, 0, new Uint32Array(rowCount).fill(9));
    const recorder = new Recorder(gpu);
    checkLogits(recorder, pipeline, upload(gpu, logits), flags, width, rowCount);
    recorder.copy(flags, 0, output.buffer, output.offset, output.bytes);
    const found = await takeGuarded(gpu, output, recorder);
    const words = new Uint32Array(found.buffer, found.byteOffset, rowCount);
    assert.deepEqual([...words], [...wanted], `width ${width}`);
  }
});

withGpu("Logits gathers (gather_rows), norms and projects the wanted rows", async (gpu) => {
  const random = randomSource(SEED + 1);
  const shape = shapeOf({ hiddenSize: 120, vocabularySize: 777 });
  const projections = await Projections.create(gpu, CAPACITY.rows);
  await projections.prepare(["bf16"]);
  const block = await Logits.create(gpu, projections, shape, CAPACITY);
  const norm = randomMatrix(gpu, random, { format: "f32", rows: 1, columns: 120 });
  const head = randomMatrix(gpu, random, { format: "bf16", rows: 777, columns: 120 });
  const residual = randomRows(random, 331, 120, 120);
  const run = async (rows: readonly number[]) => {
    const recorder = new Recorder(gpu);
    block.setRows(Uint32Array.from(rows));
    const weights = { norm: norm.matrix, head: head.matrix };
    block.encode(recorder, upload(gpu, residual), weights);
    const logits = await download(gpu, block.logits, rows.length * 777, recorder);
    const flags = new Uint32Array((await download(gpu, block.nonFinite, rows.length)).buffer);
    return { logits, flags };
  };
  const rows = [0, 3, 4, 17, 18, 19, 100, 200, 329, 330];
  const { logits, flags } = await run(rows);
  const chosen = Float64Array.from(
    { length: rows.length * 120 },
    (_, i) => residual[rows[Math.floor(i / 120)]! * 120 + i % 120]!,
  );
  const normed = rmsNorm(chosen, Float32Array.from(norm.values[0]!), shape.normEpsilon);
  assertClose(logits, matmul(normed, head.values[0]!, 777), 777, "logits");
  assert.deepEqual([...flags], rows.map(() => 0));
  assertSameBits((await run([17])).logits, logits.slice(3 * 777, 4 * 777), "one row alone");
  residual[330 * 120 + 7] = NaN;
  const broken = await run([329, 330]);
  assert.deepEqual([...broken.flags], [0, 1]);
});

withGpu("setRows() refuses too many rows and rows beyond the capacity", async (gpu) => {
  const projections = await Projections.create(gpu, CAPACITY.rows);
  const block = await Logits.create(gpu, projections, shapeOf({}), CAPACITY);
  assert.throws(() => block.setRows(new Uint32Array(65)), /wanted at most 64, found 65/);
  assert.throws(() => block.setRows(Uint32Array.of(400)), /wanted rows below 400, found 400/);
});
