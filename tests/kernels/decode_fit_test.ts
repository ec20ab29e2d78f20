/** Which fp8 models the fused kernels take, and how their matrices are joined. */
import assert from "node:assert";
import { decodeFit } from "../../kernels/decode_fit.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import type { ModelShape, TensorSpec } from "../../kernels/types.ts";
import { WeightTable } from "../../kernels/weight_table.ts";
import { expectedWeights } from "../../runtime/weights/names.ts";
import { syntheticSpec } from "../../runtime/weights/synthetic.ts";
import { dequantize, type StoredMatrix } from "../reference/formats.ts";
import { blockTensors, tensorSpecs, writeTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { randomModel, SHAPE } from "./decode_driver.ts";
import { download, withGpu } from "./harness.ts";

function specs(rowsPerScale: number, columnsPerScale: number): TensorSpec[] {
  return tensorSpecs(blockTensors(randomModel(), rowsPerScale, columnsPerScale, randomSource(1)));
}

function fit(gpu: Gpu, tensors: readonly TensorSpec[], shape: ModelShape = SHAPE) {
  return decodeFit(gpu, shape, new WeightTable(gpu, tensors));
}

withGpu(
  "decodeFit() takes fp8 with cells of whole groups and of whole rows of scales",
  (gpu) => {
    for (const [rows, columns] of [[32, 32], [16, 64], [1, 1 << 20], [32, 96]] as const) {
      assert.equal(fit(gpu, specs(rows, columns))?.main, "fp8", `${rows} x ${columns}`);
    }
    const { large } = fit(gpu, specs(16, 64))!;
    assert.deepEqual({ ...large.kdaIn.grid, SCALE_WORD: 0 }, {
      ROWS_PER_SCALE: 16,
      GROUPS_PER_SCALE: 2,
      SCALE_COLUMNS: 2,
      SCALE_WORD: 0,
    });
    return Promise.resolve();
  },
);

withGpu("decodeFit() leaves other fp8 models to the generic kernels", (gpu) => {
  const refused = (tensors: readonly TensorSpec[], what: string) =>
    assert.equal(fit(gpu, tensors), null, what);
  refused(specs(32, 48), "cells that end within a group");
  refused(specs(64, 32), "rows of gate that are no whole cells, so that up can't follow");
  const change = (key: string, changed: Partial<TensorSpec>) =>
    specs(32, 32).map((spec) => spec.key === key ? { ...spec, ...changed } : spec);
  refused(change("2.kda.k", { scale: { rowsPerScale: 16, columnsPerScale: 32 } }), "unlike grids");
  refused(change("2.kda.o", { scale: { rowsPerScale: 16, columnsPerScale: 32 } }), "unlike layers");
  refused(change("1.moe.down", { format: "bf16", scale: null }), "another format");
  return Promise.resolve();
});

withGpu("decodeFit() takes the weights of a synthetic model in fp8", (gpu) => {
  const shape: ModelShape = {
    ...SHAPE,
    hiddenSize: 256,
    kda: { headCount: 2, keyDim: 128, valueDim: 128, convolutionTaps: 4 },
    denseIntermediateSize: 384,
    moe: { ...SHAPE.moe, intermediateSize: 128, sharedIntermediateSize: 128 },
  };
  const tensors = expectedWeights(shape).map((expected) => syntheticSpec(expected, "fp8"));
  assert.equal(fit(gpu, tensors, shape)?.main, "fp8");
  return Promise.resolve();
});

withGpu("WeightTable joins fp8 matrices with their scales", async (gpu) => {
  const scale = { rowsPerScale: 8, columnsPerScale: 32 };
  const base = { format: "fp8", matrices: 1, rows: 16, columns: 64, scale } as const;
  const stack = { ...base, matrices: 3 };
  const table = new WeightTable(gpu, [
    ...["q", "k", "v"].map((name) => ({ ...base, key: `0.kda.${name}` })),
    ...["gate", "up"].map((name) => ({ ...stack, key: `1.moe.${name}` })),
    ...["gate", "up"].map((name) => ({ ...base, key: `1.shared.${name}` })),
  ]);
  const scales = (first: number) => Float32Array.from({ length: 4 }, (_, i) => first + i);
  ["q", "k", "v"].forEach((name, at) => table.writeScales(`0.kda.${name}`, 0, scales(4 * at)));
  for (let matrix = 0; matrix < 4; matrix++) {
    ["gate", "up"].forEach((name, half) => {
      const [key, index] = matrix < 3 ? ["moe", matrix] : ["shared", 0];
      table.writeScales(`1.${key}.${name}`, index!, scales(100 + 8 * matrix + 4 * half));
    });
  }
  for (const [key, first, count] of [["0.kda.qkv", 0, 12], ["1.moe.gate_up", 100, 32]] as const) {
    const { parts, scales: place, spec } = table.get(key);
    assert.equal(place.buffer, parts[0]!.buffer);
    assert.equal(place.offset % 256, 0);
    assert.ok(place.offset >= spec.matrices * spec.rows * spec.columns);
    const words = await download(gpu, place.buffer, place.offset / 4 + count);
    const wanted = Array.from({ length: count }, (_, i) => first + i);
    assert.deepEqual([...words.subarray(place.offset / 4)], wanted, key);
  }
  assert.throws(() => table.writeScales("0.kda.k", 0, new Float32Array(8)), /wanted 4, found 8/);
});

withGpu("WeightTable.widen() gives the products of elements and scales, in f32", async (gpu) => {
  const random = randomSource(5);
  const tensors = blockTensors(randomModel(), 24, 40, random, true);
  const table = new WeightTable(gpu, tensorSpecs(tensors));
  writeTensors(table, tensors, 1 << 20);
  const formats = { low: "f32", gates: "f32", kvA: "f32", router: "bf16" } as const;
  await table.widen(gpu, new Recorder(gpu), SHAPE, formats);
  for (const key of ["0.kda.f_a", "0.kda.b", "2.kda.g_b", "1.mla.kv_a"]) {
    const { spec, stride, parts } = table.get(key);
    assert.equal(spec.format, "f32");
    const { buffer, offset, bytes } = parts[0]!;
    const words = await download(gpu, buffer, (offset + bytes) / 4);
    const found = words.subarray(offset / 4);
    const wanted = dequantize(tensors.get(key)![0]! as StoredMatrix);
    wanted.forEach((value, at) => {
      const [row, column] = [Math.floor(at / spec.columns), at % spec.columns];
      assert.equal(found[row * stride + column], Math.fround(value), `${key} ${at}`);
    });
  }
  assert.equal(table.get("1.moe.router").spec.format, "bf16");
});

withGpu("decodeFit() widens small matrices that have scales or differ", (gpu) => {
  const tensors = tensorSpecs(blockTensors(randomModel(), 32, 32, randomSource(1), true));
  const { main, low, gates, kvA, kvB, router } = fit(gpu, tensors)!;
  assert.deepEqual([main, low, gates, kvA, kvB, router], [
    "fp8",
    "f32",
    "f32",
    "f32",
    "fp8",
    "bf16",
  ]);
  return Promise.resolve();
});
