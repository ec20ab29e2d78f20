import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileRouter, route } from "../../kernels/router.ts";
import type { MoeShape } from "../../kernels/types.ts";
import { normals, randomSource } from "../reference/random.ts";
import { route as referenceRoute } from "../reference/moe.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertClose } from "./weights.ts";

const SEED = 81;

function moeShape(expertCount: number, expertsPerToken: number, renormalize = true): MoeShape {
  const widths = { intermediateSize: 1, sharedIntermediateSize: 0 };
  return { expertCount, expertsPerToken, ...widths, routedScale: 2.446, renormalize };
}

async function run(gpu: Gpu, shape: MoeShape, logits: Float32Array, bias: Float32Array) {
  const rowCount = logits.length / shape.expertCount;
  const count = rowCount * shape.expertsPerToken;
  const outputs = [guarded(gpu, count), guarded(gpu, count)] as const;
  const experts = gpu.buffer("experts", 4 * count);
  const weights = gpu.buffer("weights", 4 * count);
  gpu.write(weights, 0, new Uint32Array(count).fill(0x7fc00000));
  const recorder = new Recorder(gpu);
  const choices = shape.expertsPerToken;
  const inputs = { logits: upload(gpu, logits), bias: upload(gpu, bias) };
  const routing = { ...inputs, experts, weights, choices };
  route(recorder, await compileRouter(gpu), shape, routing, rowCount);
  recorder.copy(experts, 0, outputs[0].buffer, outputs[0].offset, 4 * count);
  recorder.copy(weights, 0, outputs[1].buffer, outputs[1].offset, 4 * count);
  const chosen = await takeGuarded(gpu, outputs[0], recorder);
  return {
    experts: new Uint32Array(chosen.buffer, chosen.byteOffset, count).slice(),
    weights: await takeGuarded(gpu, outputs[1]),
  };
}

withGpu("route() chooses and weighs as the reference does", async (gpu) => {
  const random = randomSource(SEED);
  for (const [experts, top, rowCount] of [[1, 1, 1], [12, 3, 331], [256, 8, 40], [130, 130, 2]]) {
    for (const renormalize of [true, false]) {
      const shape = moeShape(experts!, top!, renormalize);
      const logits = normals(random, rowCount! * experts!, 3);
      const bias = normals(random, experts!, 0.2);
      const wanted = referenceRoute(shape, logits, bias);
      const found = await run(gpu, shape, logits, bias);
      const what = `${experts} experts, ${top} a token`;
      assert.deepEqual(found.experts, wanted.experts, what);
      assertClose(found.weights, wanted.weights, top!, what);
      assert.deepEqual(await run(gpu, shape, logits, bias), found, `${what}, again`);
    }
  }
});

withGpu("route() breaks ties by the lower index and survives extreme logits", async (gpu) => {
  const shape = moeShape(6, 3);
  const zero = new Float32Array(6);
  const equal = await run(gpu, shape, new Float32Array(6).fill(0.5), zero);
  assert.deepEqual([...equal.experts], [0, 1, 2]);
  const pairs = await run(gpu, shape, Float32Array.of(1, 2, 1, 2, 1, 2), zero);
  assert.deepEqual([...pairs.experts], [1, 3, 5]);
  const low = await run(gpu, shape, new Float32Array(6).fill(-1000), zero);
  assert.deepEqual([...low.experts], [0, 1, 2]);
  assert.deepEqual([...low.weights], [0, 0, 0]);
  const high = await run(gpu, shape, new Float32Array(6).fill(1000), zero);
  assertClose(high.weights, Float64Array.of(2.446 / 3, 2.446 / 3, 2.446 / 3), 3, "high");
});

withGpu("route() chooses by the biased score and weighs by the plain one", async (gpu) => {
  const shape = { ...moeShape(4, 2), routedScale: 1 };
  const found = await run(
    gpu,
    shape,
    Float32Array.of(2, 1, 0, -1),
    Float32Array.of(-9, 0, 0, -0.25),
  );
  assert.deepEqual([...found.experts], [1, 2]);
  const [a, b] = [1 / (1 + Math.exp(-1)), 0.5];
  assertClose(found.weights, Float64Array.of(a / (a + b), b / (a + b)), 2, "weights");
});

withGpu("route() names distinct existing experts for a row of NaN", async (gpu) => {
  const logits = new Float32Array(12).fill(NaN);
  logits[5] = 1;
  const { experts } = await run(gpu, moeShape(12, 3), logits, new Float32Array(12));
  assert.deepEqual([...experts], [5, 0, 1]);
});
