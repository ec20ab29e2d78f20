/** The work of a step's kernels against numbers counted by hand, and what is made of it. */
import assert from "node:assert/strict";
import { kernelLines, kernelTimes, peakText } from "../../runtime/cli/bench_kernels.ts";
import { syntheticModel } from "../../runtime/cli/bench_synthetic.ts";
import { kernelWork, type WorkStep } from "../../runtime/cli/bench_work.ts";
import type { ModelShape } from "../../runtime/model/device.ts";

const SHAPE: ModelShape = {
  vocabularySize: 100,
  hiddenSize: 64,
  layers: [{ mixer: "kda", feedForward: "dense" }, { mixer: "mla", feedForward: "moe" }],
  normEpsilon: 1e-5,
  latentNormEpsilon: 1e-6,
  kda: { headCount: 1, keyDim: 32, valueDim: 32, convolutionTaps: 4 },
  mla: { headCount: 2, latentDim: 32, nopeDim: 32, sharedKeyDim: 16, valueDim: 32 },
  denseIntermediateSize: 96,
  moe: {
    expertCount: 4,
    expertsPerToken: 2,
    intermediateSize: 32,
    sharedIntermediateSize: 32,
    routedScale: 1,
    renormalize: true,
  },
};

/** Work of `step` as [bytes, integer operations, float operations] of each kernel. */
function workOf(
  weights: "q4" | "bf16",
  kernels: readonly string[],
  step: Pick<WorkStep, "sequences" | "chosenExperts">,
): Record<string, number[]> {
  const { specs } = syntheticModel(SHAPE, weights);
  const given = { ...step, shape: SHAPE, specs, latentBytes: 2, kernels: new Set(kernels) };
  const work = kernelWork({ ...given, logitRows: step.sequences.length });
  return Object.fromEntries(
    [...work].map(([name, { bytes, integerOperations, floatOperations }]) => [
      name,
      [bytes, integerOperations, floatOperations],
    ]),
  );
}

Deno.test("kernelWork() counts a step of two single rows through the fused kernels", () => {
  const kernels = ["kda_in", "kda_step", "mla_in", "attention", "values", "out", "up", "down"]
    .map((name) => `decode_${name}`);
  const step = {
    sequences: [{ past: 10, rowCount: 1 }, { past: 10, rowCount: 1 }],
    chosenExperts: [3],
  };
  const found = workOf("q4", [...kernels, "decode_head", "decode_absorb", "top_tokens"], step);
  const grouped = workOf("q4", ["decode_experts", "decode_down"], step);
  assert.deepEqual(grouped, {
    decode_experts: found["decode_up"],
    decode_down: found["decode_down"],
  });
  const several = ["decode_up", "decode_kda_gates", "decode_kda_update", "decode_kda_step"];
  const [gates, states] = [2 * 2 * 32 * 32 + 4 * (1 + 32), 2 * 8 * 32 * 32];
  assert.deepEqual(workOf("q4", several, step), {
    decode_up: found["decode_up"],
    // f_b g_b in bf16; A_log, dt_bias.
    decode_kda_gates: [gates, 0, 2 * 2 * 2 * 32 * 32],
    // o_norm; states of two sequences read and written.
    decode_kda_update: [4 * 32 + states, 0, 2 * 7 * 32 * 32],
  });
  // q4: a row of 64 columns has 32 bytes and 4 of scales, of 96 columns 48 and 8 (padded).
  assert.deepEqual(found, {
    // q k v; f_a g_a b in bf16; taps; tails of two sequences read and written.
    decode_kda_in: [
      3 * 32 * 36 + 2 * 65 * 64 + 3 * 32 * 4 * 4 + 2 * 8 * 3 * 96,
      2 * 2 * 96 * 64,
      2 * 2 * 65 * 64,
    ],
    // f_b g_b in bf16; A_log, dt_bias, o_norm; states of two sequences read and written.
    decode_kda_step: [
      2 * 2 * 32 * 32 + 4 * (1 + 32 + 32) + 2 * 8 * 32 * 32,
      0,
      2 * 2 * 2 * 32 * 32 + 2 * 7 * 32 * 32,
    ],
    // q of two heads of 48; kv_a in bf16.
    decode_mla_in: [96 * 36 + 2 * 48 * 64, 2 * 2 * 96 * 64, 2 * 2 * 48 * 64],
    // Half of kv_b each.
    decode_absorb: [2 * 64 * 32, 0, 2 * 2 * 64 * 32],
    decode_values: [2 * 64 * 32, 0, 2 * 2 * 64 * 32],
    // 11 entries of 48 f16 a sequence; scores over 48, values over 32 channels of two heads.
    decode_attention: [2 * 11 * 48 * 2, 0, 2 * 11 * 2 * 2 * (48 + 32)],
    // kda.o, mla.o, dense.down; the router in bf16.
    decode_out: [
      64 * (16 + 4) + 64 * 36 + 64 * 56 + 2 * 4 * 64,
      2 * 2 * 64 * (32 + 64 + 96),
      2 * 2 * 4 * 64,
    ],
    // gate and up: dense; 3 experts read for 4 choices; shared.
    decode_up: [
      2 * 96 * 36 + 3 * 2 * 32 * 36 + 2 * 32 * 36,
      2 * 2 * 2 * 96 * 64 + 2 * 4 * 2 * 32 * 64 + 2 * 2 * 2 * 32 * 64,
      0,
    ],
    decode_down: [3 * 64 * 20 + 64 * 20, 2 * 4 * 64 * 32 + 2 * 2 * 64 * 32, 0],
    // q8.
    decode_head: [100 * (64 + 4), 2 * 2 * 100 * 64, 0],
  });
});

Deno.test("kernelWork() counts a piece of a prompt through the generic kernels", () => {
  const kernels = ["matmul", "matvec", "expert_matmul", "mla_gather", "mla_prefill", "short_conv"];
  const found = workOf("bf16", kernels, {
    sequences: [{ past: 20, rowCount: 12 }],
    chosenExperts: [4],
  });
  // Rows times columns of all matrices that 12 rows meet.
  const kda = 4 * 32 * 64 + 65 * 64 + 2 * 32 * 32;
  const mla = (96 + 48 + 64) * 64;
  const feedForward = 3 * 96 * 64 + 4 * 64 + 3 * 32 * 64;
  const elements = kda + mla + feedForward;
  const kvB = 128 * 32;
  const pairs = 12 * 20 + 12 * 13 / 2;
  assert.deepEqual(found, {
    matmul: [2 * (elements + kvB), 0, 2 * 12 * elements + 2 * 32 * kvB],
    matvec: [2 * 100 * 64, 0, 2 * 100 * 64],
    expert_matmul: [2 * 4 * 3 * 32 * 64, 0, 2 * 24 * 3 * 32 * 64],
    mla_gather: [32 * 48 * 2, 0, 0],
    mla_prefill: [0, 0, pairs * 2 * 2 * (32 + 16 + 32)],
    short_conv: [8 * 3 * 96, 0, 0],
  });
});

Deno.test("kernelWork() puts a stacked shared expert to the experts' kernel", () => {
  const kernels = ["q_matmul", "q_expert_matmul"];
  const found = workOf("q4", kernels, {
    sequences: [{ past: 0, rowCount: 5 }],
    chosenExperts: [2],
  });
  const expert = 2 * 32 * 36 + 64 * 20;
  assert.deepEqual(found.q_expert_matmul, [(2 + 1) * expert, 2 * 5 * 3 * 3 * 32 * 64, 0]);
});

const PEAK = {
  readBytesPerSecond: 1e12,
  integerOperationsPerSecond: 1e14,
  floatOperationsPerSecond: 1e13,
};

Deno.test("kernelTimes() sums by kernel and names the peak that comes closest", () => {
  const times = [["a", 500], ["b", 3_000], ["a", 1_500], ["c", 100]] as const;
  const work = new Map([
    ["a", { bytes: 1e6, integerOperations: 0, floatOperations: 5e6 }],
    ["b", { bytes: 0, integerOperations: 6e6, floatOperations: 6e6 }],
  ]);
  const found = kernelTimes(times.map(([kernel, ns]) => ({ kernel, nanoseconds: ns })), work, PEAK);
  assert.deepEqual(
    found.map(({ kernel, dispatches, microseconds }) => {
      return [kernel, dispatches, microseconds];
    }),
    [["b", 1, 3], ["a", 2, 2], ["c", 1, 0.1]],
  );
  const [b, a, c] = found;
  assert.deepEqual([a!.bytesPerSecond, a!.floatOperationsPerSecond], [5e11, 2.5e12]);
  assert.deepEqual([a!.limit, a!.peakShare], ["readBytesPerSecond", 0.5]);
  assert.deepEqual([b!.limit, b!.peakShare], ["floatOperationsPerSecond", 0.2]);
  assert.deepEqual([b!.bytesPerSecond, b!.integerOperationsPerSecond], [null, 2e12]);
  assert.deepEqual([c!.work, c!.limit, c!.peakShare], [null, null, null]);
  const lines = kernelLines(found);
  assert.equal(lines.length, 4);
  assert.match(lines[2]!, /^ {2}a +2 +2 +39\.2% +500 +- +2\.5 +50\.0% read$/);
  assert.match(lines[3]!, /^ {2}c +1 +0\.1 +2\.0%( +-){4}$/);
});

Deno.test("without a peak there are rates and no shares", () => {
  const work = new Map([["a", { bytes: 10, integerOperations: 0, floatOperations: 0 }]]);
  const [a] = kernelTimes([{ kernel: "a", nanoseconds: 10 }], work, null);
  assert.deepEqual([a!.bytesPerSecond, a!.limit, a!.peakShare], [1e9, null, null]);
  assert.equal(peakText(PEAK), "1,000 GB/s read, 100 int8 TOPS, 10 f32 TFLOP/s");
});
