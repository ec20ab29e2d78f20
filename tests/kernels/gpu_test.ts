/** The ground the kernels stand on: buffers, pipelines, the recorder, readback, weights. */
import assert from "node:assert";
import { openGpu } from "../../kernels/gpu/gpu.ts";
import { defineKernel } from "../../kernels/gpu/kernel.ts";
import { Readback } from "../../kernels/gpu/readback.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { groupCount, Matrix, scaleStride } from "../../kernels/matrix.ts";
import type { FloatFormat } from "../../kernels/weight_preludes.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";

const SCALE = defineKernel({
  name: "scale",
  source: `
struct Params { count: u32, factor: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
override SHIFT: f32 = 0.0;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) { y[id.x] = x[id.x] * params.factor + SHIFT; }
}`,
  bindings: ["read", "write"],
  params: { count: "u32", factor: "f32" },
});

withGpu("Recorder runs more dispatches than one submission holds, in order", async (gpu) => {
  const double = await SCALE.compile(gpu);
  const recorder = new Recorder(gpu);
  const a = upload(gpu, Float32Array.of(1));
  const b = upload(gpu, Float32Array.of(0));
  // An even number of steps of factors whose product is one, and then 3.
  for (let round = 0; round < 3_000; round++) {
    const factor = round % 2 === 0 ? 2 : 0.5;
    const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
    recorder.dispatch(double, [read(from), write(to)], { count: 1, factor }, [1]);
  }
  recorder.dispatch(double, [read(a), write(b)], { count: 1, factor: 3 }, [1]);
  assert.strictEqual(recorder.dispatchCount, 3_001);
  assert.deepStrictEqual(await download(gpu, b, 1, recorder), Float32Array.of(3));
});

withGpu("Recorder hands long work over in several pieces, in order", async (gpu) => {
  const double = await SCALE.compile(gpu);
  const recorder = new Recorder(gpu);
  const a = upload(gpu, Float32Array.of(1));
  const b = upload(gpu, Float32Array.of(0));
  const { queue } = gpu.device;
  const submit = queue.submit;
  let submissions = 0;
  queue.submit = (commands) => {
    submissions++;
    return submit.call(queue, commands);
  };
  try {
    for (let round = 0; round < 10; round++) {
      recorder.work(9e10);
      const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
      recorder.dispatch(double, [read(from), write(to)], { count: 1, factor: 2 }, [1]);
    }
    assert.strictEqual(submissions, 0);
    recorder.submit();
    // 2e11 are reached before the third, sixth and ninth dispatch.
    assert.strictEqual(submissions, 4);
  } finally {
    queue.submit = submit;
  }
  assert.deepStrictEqual(await download(gpu, a, 1), Float32Array.of(1_024));
});

withGpu("Recorder orders copies and clears with dispatches", async (gpu) => {
  const shifted = await SCALE.compile(gpu, { SHIFT: 1 });
  const recorder = new Recorder(gpu);
  const a = upload(gpu, Float32Array.of(1, 2, 3, 4));
  const b = gpu.buffer("b", 16);
  recorder.dispatch(shifted, [read(a), write(b)], { count: 4, factor: 10 }, [1]);
  recorder.copy(b, 0, a, 8, 8);
  recorder.clear(b, 4, 4);
  recorder.dispatch(shifted, [read(a), write(b)], { count: 1, factor: 1 }, [1]);
  assert.deepStrictEqual(await download(gpu, a, 4, recorder), Float32Array.of(1, 2, 11, 21));
  assert.deepStrictEqual(await download(gpu, b, 4), Float32Array.of(2, 0, 31, 41));
});

withGpu("Recorder refuses wrong bindings, groups and params by name", async (gpu) => {
  const pipeline = await SCALE.compile(gpu);
  const recorder = new Recorder(gpu);
  const a = gpu.buffer("a", 16);
  const params = { count: 1, factor: 1 };
  const dispatch = (uses: Parameters<typeof recorder.dispatch>[1], groups = 1, given = params) =>
    recorder.dispatch(pipeline, uses, given, [groups]);
  assert.throws(() => dispatch([read(a)]), /"scale": wanted 2 buffers, found 1/);
  assert.throws(() => dispatch([write(a), write(a)]), /wanted read at binding 1, found write/);
  assert.throws(() => dispatch([read(a), write(a)], 70_000), /at most 65535 groups/);
  assert.throws(
    () => dispatch([read(a), write(a)], 1, { count: -1, factor: 1 }),
    /wanted u32 "count", found -1/,
  );
});

withGpu("guarded() shows unwritten elements and writes out of bounds", async (gpu) => {
  const pipeline = await SCALE.compile(gpu);
  const input = upload(gpu, new Float32Array(16).fill(1));
  const output = guarded(gpu, 8);
  const recorder = new Recorder(gpu);
  const inside = write(output.buffer, output.offset, output.bytes);
  recorder.dispatch(pipeline, [read(input), inside], { count: 6, factor: 1 }, [1]);
  const found = await takeGuarded(gpu, output, recorder);
  assert.deepStrictEqual(Array.from(found), [1, 1, 1, 1, 1, 1, NaN, NaN]);
  const outside = write(output.buffer, output.offset);
  recorder.dispatch(pipeline, [read(input), outside], { count: 9, factor: 1 }, [1]);
  await assert.rejects(takeGuarded(gpu, output, recorder), /outside its output/);
});

withGpu("Gpu.write takes parts of arrays, and empty ones", async (gpu) => {
  const buffer = upload(gpu, Float32Array.of(1, 2, 3, 4));
  gpu.write(buffer, 8, Float32Array.of(0, 7, 8, 9).subarray(1), 8);
  gpu.write(buffer, 0, new Float32Array(0));
  assert.deepStrictEqual(await download(gpu, buffer, 4), Float32Array.of(1, 2, 7, 8));
});

withGpu("Gpu.write takes shared memory, which the loader reads ahead into", async (gpu) => {
  const shared = new Float32Array(new SharedArrayBuffer(24));
  shared.set([5, 6, 7, 8, 9, 10]);
  const buffer = upload(gpu, new Float32Array(4));
  gpu.write(buffer, 4, shared.subarray(2, 5));
  assert.deepStrictEqual(await download(gpu, buffer, 4), Float32Array.of(0, 7, 8, 9));
});

withGpu("compile() names file, line and column of a broken shader", async (gpu) => {
  const broken = defineKernel({
    name: "broken",
    source: "fn main() {\n  let x = ;\n}",
    preludes: [{ name: "lib/first.wgsl", source: "const ONE = 1u;\nconst TWO = 2u;" }],
    bindings: [],
    params: {},
  });
  await assert.rejects(broken.compile(gpu), /compile broken\.wgsl:2:1\d/);
  await assert.rejects(SCALE.compile(gpu, { NOPE: 1 }), /pipeline of scale\.wgsl/);
});

withGpu("Readback takes the fast way and refuses more than it holds", async (gpu) => {
  const readback = await Readback.create(gpu, 2_048);
  assert.strictEqual(readback.synchronous, true);
  const buffer = gpu.buffer("a", 4_096);
  await assert.rejects(readback.read(new Recorder(gpu), buffer, 0, 4_096), /at most 2048 bytes/);
});

Deno.test({
  name: "Readback reports a lost device instead of stale bytes",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    const gpu = await openGpu({ software: true });
    const readback = await Readback.create(gpu, 1_024);
    const recorder = new Recorder(gpu);
    const buffer = gpu.buffer("a", 16);
    await readback.read(recorder, buffer, 0, 16);
    gpu.device.destroy();
    await assert.rejects(readback.read(recorder, buffer, 0, 16), /read back from|device lost/);
    await gpu.device.lost;
    await assert.rejects(readback.read(recorder, buffer, 0, 16), /device lost/);
  },
});

withGpu("Matrix pads rows, keeps bits and splits at the binding limit", async (gpu) => {
  const cases: [FloatFormat, number, number, number, number][] = [
    ["bf16", 1, 7, 5, 1 << 20],
    ["fp8", 3, 5, 19, 1 << 20],
    ["f32", 1, 9, 16, 256],
    ["f16", 4, 3, 40, 300],
    ["fp8", 2, 33, 130, 1_000],
  ];
  for (const [format, matrices, rows, columns, limit] of cases) {
    const bytes = { f32: 4, f16: 2, bf16: 2, fp8: 1 }[format];
    const spec = { key: "w", format, matrices, rows, columns, scale: null };
    const matrix = Matrix.allocate(gpu, spec, limit);
    const stored = Array.from(
      { length: matrices },
      (_, at) =>
        Uint8Array.from({ length: rows * columns * bytes }, (_, i) => 1 + (i * 7 + at) % 255),
    );
    for (const [at, data] of stored.entries()) {
      // Pieces that end inside a row.
      const piece = bytes * (columns + 3);
      for (let start = 0; start < data.length; start += piece) {
        matrix.write(at, start, data.subarray(start, start + piece));
      }
    }
    const strideBytes = matrix.stride * bytes;
    for (const part of matrix.parts) {
      const partRows = part.matrixCount * part.rowCount;
      assert.ok(partRows * strideBytes <= limit);
      const words = await download(gpu, part.buffer, partRows * strideBytes / 4);
      const found = new Uint8Array(words.buffer);
      for (let row = 0; row < partRows; row++) {
        const data = stored[part.matrixStart + Math.floor(row / part.rowCount)]!;
        const at = (part.rowStart + row % part.rowCount) * columns * bytes;
        const wanted = new Uint8Array(strideBytes);
        wanted.set(data.subarray(at, at + columns * bytes));
        const inPart = found.subarray(row * strideBytes, (row + 1) * strideBytes);
        assert.deepStrictEqual(inPart, wanted, `${format} ${rows}x${columns} row ${row}`);
      }
    }
    const held = matrix.parts.reduce((sum, part) => sum + part.matrixCount * part.rowCount, 0);
    assert.strictEqual(held, matrices * rows);
  }
});

withGpu("Matrix keeps q8 and q4 with their scales and splits at the binding limit", async (gpu) => {
  const cases: ["q8" | "q4", number, number, number, number][] = [
    ["q8", 1, 5, 64, 1 << 20],
    ["q4", 3, 7, 2_304, 1 << 20],
    ["q4", 4, 3, 40, 300],
    ["q8", 2, 33, 130, 1_000],
  ];
  for (const [format, matrices, rows, columns, limit] of cases) {
    const spec = { key: "test", format, matrices, rows, columns, scale: null };
    const matrix = Matrix.allocate(gpu, spec, limit);
    const rowBytes = groupCount(columns) * (format === "q8" ? 32 : 16);
    const scaleBytes = 2 * scaleStride(columns);
    const random = (count: number, at: number) =>
      Uint8Array.from({ length: rows * count }, (_, i) => (i * 7 + at) % 256);
    const stored = Array.from({ length: matrices }, (_, at) => ({
      elements: random(rowBytes, at),
      scales: random(scaleBytes, 91 + at),
    }));
    for (const [at, { elements, scales }] of stored.entries()) {
      for (let start = 0; start < elements.length; start += 60) {
        matrix.write(at, start, elements.subarray(start, start + 60));
      }
      const middle = scaleBytes * Math.floor(rows / 2);
      matrix.writeGroupScales(at, 0, scales.subarray(0, middle));
      matrix.writeGroupScales(at, middle, scales.subarray(middle));
    }
    for (const part of matrix.parts) {
      const { matrixStart, matrixCount, rowStart, rowCount, blockBytes } = part;
      assert.ok(matrixCount * blockBytes <= limit);
      const words = await download(gpu, part.buffer, matrixCount * blockBytes / 4);
      for (let at = 0; at < matrixCount; at++) {
        const { elements, scales } = stored[matrixStart + at]!;
        const block = new Uint8Array(words.buffer, at * blockBytes, blockBytes);
        const split = rowCount * rowBytes;
        const from = rowStart * rowBytes;
        assert.deepStrictEqual(block.subarray(0, split), elements.subarray(from, from + split));
        const scaleFrom = rowStart * scaleBytes;
        const wanted = scales.subarray(scaleFrom, scaleFrom + rowCount * scaleBytes);
        assert.deepStrictEqual(block.subarray(split, split + wanted.length), wanted);
      }
    }
    assert.throws(() => matrix.writeGroupScales(0, 2, new Uint8Array(2)), /wanted whole rows/);
  }
});

withGpu("Matrix refuses pieces out of order and scales it has no place for", (gpu) => {
  const spec = { key: "w", format: "f32", matrices: 1, rows: 2, columns: 4, scale: null } as const;
  const matrix = Matrix.allocate(gpu, spec);
  assert.throws(() => matrix.write(0, 4, new Uint8Array(4)), /wanted pieces in order/);
  assert.throws(() => matrix.write(0, 0, new Uint8Array(64)), /within 32 bytes, found 64/);
  assert.throws(() => matrix.writeScales(0, new Float32Array(1)), /wanted 0, found 1/);
  assert.throws(() => Matrix.allocate(gpu, spec, 16), /rows of at most 16 bytes, found 64/);
  return Promise.resolve();
});
