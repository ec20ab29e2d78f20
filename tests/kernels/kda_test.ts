/** KDA's kernels against f64, the chunked form against the step form. */
import assert from "node:assert";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { compileKdaGate, kdaGate } from "../../kernels/kda_gate.ts";
import { compileKdaOutput, kdaOutput } from "../../kernels/kda_output.ts";
import { compileKdaChunkScan } from "../../kernels/kda_chunk_scan.ts";
import { compileKdaStep } from "../../kernels/kda_step.ts";
import type { KdaShape } from "../../kernels/types.ts";
import { sigmoid } from "../reference/activations.ts";
import { normalizedError, worstError } from "../reference/compare.ts";
import type { Reals } from "../reference/formats.ts";
import { l2Normalize, logDecay } from "../reference/kda.ts";
import { normals, randomSource } from "../reference/random.ts";
import { gatedRmsNorm } from "../reference/rms_norm.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { type KdaInputs, kdaInputs, referenceKda, rowsOf, runKda } from "./kda_driver.ts";
import type { Segment } from "./plans.ts";

function shapeOf(headCount: number, keyDim: number, valueDim: number): KdaShape {
  return { headCount, keyDim, valueDim, convolutionTaps: 4 };
}

function close(found: Reals, wanted: Reals, mean = 1e-10, worst = 1e-4): void {
  const error = normalizedError(found, wanted);
  const largest = worstError(found, wanted);
  assert.ok(error <= mean, `normalised error ${error}, wanted at most ${mean}`);
  assert.ok(largest <= worst, `worst element ${largest}, wanted at most ${worst}`);
}

/** Gates as in the published checkpoint: |g| to 2,661 a token, and gates of nearly 0. */
function hugeGates(shape: KdaShape, rows: number, slots: number, seed: number): KdaInputs {
  const inputs = kdaInputs(shape, rows, slots, seed, 3);
  const random = randomSource(seed + 1);
  for (let i = 0; i < inputs.a.length; i++) {
    const dice = random();
    if (dice < 0.05) inputs.a[i] = 13.2;
    else if (dice < 0.1) inputs.a[i] = 300;
    else if (dice < 0.6) inputs.a[i] = -18 - 20 * random();
  }
  inputs.aLog.fill(Math.log(201));
  inputs.dtBias.fill(0.01);
  return inputs;
}

const CASES: readonly [KdaShape, readonly Segment[]][] = [
  [shapeOf(1, 1, 1), [{ slot: 0, rowCount: 1 }]],
  [shapeOf(1, 1, 1), [{ slot: 0, rowCount: 2 }]],
  [shapeOf(3, 48, 48), [{ slot: 1, rowCount: 331 }]],
  [shapeOf(2, 24, 40), [
    { slot: 4, rowCount: 1 },
    { slot: 0, rowCount: 2 },
    { slot: 5, rowCount: 17 },
    { slot: 1, rowCount: 1 },
    { slot: 2, rowCount: 16 },
    { slot: 3, rowCount: 33 },
  ]],
  [shapeOf(3, 40, 24), [{ slot: 2, rowCount: 15 }, { slot: 0, rowCount: 1 }]],
  [shapeOf(2, 128, 128), [{ slot: 0, rowCount: 20 }, { slot: 2, rowCount: 1 }]],
  [shapeOf(1, 130, 67), [{ slot: 0, rowCount: 1 }, { slot: 2, rowCount: 31 }]],
];
const SLOTS = 6;

for (const [index, [shape, segments]] of CASES.entries()) {
  for (const gates of ["usual", "huge"]) {
    withGpu(`KDA agrees with f64, case ${index}, ${gates} gates`, async (gpu) => {
      const rows = segments.reduce((sum, { rowCount }) => sum + rowCount, 0);
      const make = gates === "huge" ? hugeGates : kdaInputs;
      const inputs = make(shape, rows, SLOTS, 1_000 + index);
      const found = await runKda(gpu, shape, segments, inputs);
      const wanted = referenceKda(shape, segments, inputs);
      close(found.o, wanted.o);
      close(found.state, wanted.state);
      const slot = shape.headCount * shape.keyDim * shape.valueDim;
      const used = new Set(segments.map((segment) => segment.slot));
      for (let s = 0; s < SLOTS; s++) {
        if (used.has(s)) continue;
        const range = [s * slot, (s + 1) * slot] as const;
        assert.deepStrictEqual(found.state.slice(...range), inputs.state.slice(...range));
      }
      assert.deepStrictEqual(await runKda(gpu, shape, segments, inputs), found);
    });
  }
}

for (const gates of ["usual", "huge"]) {
  withGpu(`KDA chunks agree with single steps, ${gates} gates`, async (gpu) => {
    const shape = shapeOf(2, 40, 24);
    const make = gates === "huge" ? hugeGates : kdaInputs;
    const inputs = make(shape, 70, 2, 77);
    const whole = await runKda(gpu, shape, [{ slot: 1, rowCount: 70 }], inputs);
    const o = new Float32Array(whole.o.length);
    let state = inputs.state;
    for (let row = 0; row < 70; row++) {
      const part = rowsOf(shape, inputs, row, 1, state);
      const single = await runKda(gpu, shape, [{ slot: 1, rowCount: 1 }], part);
      o.set(single.o, row * shape.headCount * shape.valueDim);
      state = single.state;
    }
    close(whole.o, o, 1e-11, 1e-5);
    close(whole.state, state, 1e-11, 1e-5);
  });
}

withGpu("KDA gives a sequence the same bits alone and among others", async (gpu) => {
  const shape = shapeOf(2, 24, 40);
  const segments = CASES[3]![1];
  const inputs = kdaInputs(shape, 70, SLOTS, 5);
  const together = await runKda(gpu, shape, segments, inputs);
  const slotLength = shape.headCount * shape.keyDim * shape.valueDim;
  let row = 0;
  for (const segment of segments) {
    const { slot, rowCount } = segment;
    const alone = await runKda(gpu, shape, [segment], rowsOf(shape, inputs, row, rowCount));
    const width = shape.headCount * shape.valueDim;
    assert.deepStrictEqual(alone.o, together.o.slice(row * width, (row + rowCount) * width));
    assert.deepStrictEqual(
      alone.state.slice(slot * slotLength, (slot + 1) * slotLength),
      together.state.slice(slot * slotLength, (slot + 1) * slotLength),
    );
    row += rowCount;
  }
});

withGpu("KDA gives the values of the worked example, chunked and in steps", async (gpu) => {
  const shape = shapeOf(1, 3, 2);
  const table = (width: number, value: (t: number, d: number) => number) =>
    Float32Array.from({ length: 4 * width }, (_, i) => value(Math.floor(i / width), i % width));
  const inputs: KdaInputs = {
    q: table(3, (t, d) => Math.sin(1 + 3 * t + d)),
    k: table(3, (t, d) => Math.cos(1 + 3 * t + d)),
    v: table(2, (t, d) => Math.sin(0.5 * (2 * t + d))),
    a: table(3, (t, d) => 0.3 * t - 0.2 * d),
    b: Float32Array.of(0, 1, -1, 2),
    aLog: Float32Array.of(0.5),
    dtBias: Float32Array.of(-1, 0, 1),
    state: new Float32Array(6),
  };
  const o = Float64Array.of(
    ...[0, -0.0058591029, -0.0108131602, -0.0188405395],
    ...[-0.0230562338, -0.0231921469, -0.0001825538, 0.0034113923],
  );
  const state = Float64Array.of(
    ...[-0.0858646253, 0.2092519533, 0.000234231],
    ...[0.0005896578, 0.0873616062, -0.2271141538],
  );
  const chunked = await runKda(gpu, shape, [{ slot: 0, rowCount: 4 }], inputs);
  assert.ok(worstError(chunked.o, o) < 1e-5);
  assert.ok(worstError(chunked.state, state) < 1e-5);
  const aqk = [
    [-0.0244421809],
    [-0.0220920407, -0.0175776702],
    [0.0179053711, -0.033255260, -0.0093054458],
    [-0.0067416321, 0.0152490243, -0.0341020151, -0.0002861241],
  ];
  for (let i = 0; i < 16; i++) {
    for (let j = 0; j < 16; j++) {
      const wanted = aqk[i]?.[j] ?? 0;
      assert.ok(Math.abs(chunked.scores[16 * i + j]! - wanted) < 1e-7, `Aqk ${i},${j}`);
    }
  }
  let now = inputs.state;
  for (let t = 0; t < 4; t++) {
    const part = rowsOf(shape, inputs, t, 1, now);
    const single = await runKda(gpu, shape, [{ slot: 0, rowCount: 1 }], part);
    assert.ok(worstError(single.o, o.subarray(2 * t, 2 * t + 2)) < 1e-5);
    now = single.state;
  }
  assert.ok(worstError(now, state) < 1e-5);
});

withGpu("kdaGate() agrees with f64 over the whole range of gates", async (gpu) => {
  const random = randomSource(11);
  const [headCount, keyDim, rows] = [3, 70, 9];
  const keys = headCount * keyDim;
  const mixedStride = 2 * keys + 5;
  const mixed = normals(random, rows * mixedStride);
  mixed.fill(0, 0, keyDim);
  for (let i = 0; i < keyDim; i++) mixed[keyDim + i] = 1e-41;
  for (let i = 0; i < keyDim; i++) mixed[2 * keyDim + i] = 1e12 * (i - 30);
  const a = normals(random, rows * keys, 8);
  for (const [i, salt] of [0, -0, 1e-41, 300, -300, 20, 20.0001, -87, -104, 3e38].entries()) {
    a[i * 3] = salt;
  }
  const b = normals(random, rows * headCount, 30);
  const aLog = Float32Array.of(Math.log(201), 0, -4);
  const dtBias = normals(random, keys);
  const run = async () => {
    const [m, r, s] = [upload(gpu, mixed), upload(gpu, a), upload(gpu, b)];
    const recorder = new Recorder(gpu);
    kdaGate(
      recorder,
      await compileKdaGate(gpu),
      {
        aLog: read(upload(gpu, aLog)),
        dtBias: read(upload(gpu, dtBias)),
        mixed: write(m),
        retention: write(r),
        beta: write(s),
      },
      { headCount, keyDim, mixedStride },
      rows,
    );
    return [
      await download(gpu, m, mixed.length, recorder),
      await download(gpu, r, a.length),
      await download(gpu, s, b.length),
    ] as const;
  };
  const found = await run();
  const wanted = Float64Array.from(mixed);
  for (let row = 0; row < rows; row++) {
    const at = row * mixedStride;
    wanted.set(l2Normalize(wanted.slice(at, at + keys), keyDim, keyDim ** -0.5), at);
    wanted.set(l2Normalize(wanted.slice(at + keys, at + 2 * keys), keyDim, 1), at + keys);
  }
  close(found[0], wanted);
  const g = logDecay(a, aLog, dtBias);
  close(found[1], g.map(Math.exp), 1e-12, 1e-5);
  for (const [i, value] of found[1].entries()) {
    assert.ok(value >= 0 && value <= 1, `retention ${i}: ${value}`);
  }
  close(found[2], Float64Array.from(b).map(sigmoid), 1e-12, 1e-5);
  assert.deepStrictEqual(await run(), found);
});

withGpu("kdaOutput() agrees with f64 and with the worked example", async (gpu) => {
  const run = async (
    headCount: number,
    o: Float32Array,
    weight: Float32Array,
    gate: Float32Array,
  ) => {
    const valueDim = weight.length;
    const target = guarded(gpu, o.length);
    const words = new Uint8Array(o.buffer, o.byteOffset, o.byteLength).slice();
    gpu.write(target.buffer, target.offset, words);
    const recorder = new Recorder(gpu);
    kdaOutput(
      recorder,
      await compileKdaOutput(gpu),
      {
        gate: read(upload(gpu, gate)),
        weight: read(upload(gpu, weight)),
        o: write(target.buffer, target.offset, target.bytes),
      },
      { headCount, valueDim, epsilon: 1e-5 },
      o.length / (headCount * valueDim),
    );
    return await takeGuarded(gpu, target, recorder);
  };
  const random = randomSource(21);
  for (const [headCount, valueDim, rows] of [[1, 1, 1], [3, 48, 5], [2, 200, 7]] as const) {
    const count = headCount * valueDim * rows;
    const o = normals(random, count);
    const gate = normals(random, count, 20);
    const weight = normals(random, valueDim);
    for (const [i, salt] of [0, 1e-41, 1e6, -1e-20].entries()) o[i % count] = salt;
    gate.set([200, -200].slice(0, count));
    const found = await run(headCount, o, weight, gate);
    close(found, gatedRmsNorm(o, weight, gate, 1e-5));
    assert.deepStrictEqual(await run(headCount, o, weight, gate), found);
  }
  const found = await run(
    1,
    Float32Array.of(1, -2, 3, 0.5),
    Float32Array.of(1, 1, 2, 1),
    Float32Array.of(0, 1, -1, 3),
  );
  const wanted = Float64Array.of(0.2649060996, -0.7746475066, 0.8549306755, 0.2523426965);
  assert.ok(worstError(found, wanted) < 1e-6);
});

withGpu("KDA's kernels refuse what the adapter cannot run right", (gpu) => {
  assert.throws(() => compileKdaStep(gpu, 20_000), /compile "kda_step": wanted at most/);
  assert.throws(
    () => compileKdaChunkScan(gpu, shapeOf(1, 128, 128), 1 << 20),
    /dispatch "kda_chunk_scan": wanted at most 60000 loop turns/,
  );
  return Promise.resolve();
});
