import assert from "node:assert";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileGroupTokens, groupTokens, tileLimit } from "../../kernels/group_tokens.ts";
import { randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";

const SEED = 91;

/** Pairs by expert, then by number; and the tiles, filled up with zeros. */
function reference(experts: Uint32Array, expertCount: number, tileSize: number) {
  const order: number[] = [];
  const tiles: number[] = [];
  for (let expert = 0; expert < expertCount; expert++) {
    const pairs = [...experts.keys()].filter((pair) => experts[pair] === expert);
    for (let start = 0; start < pairs.length; start += tileSize) {
      const end = Math.min(start + tileSize, pairs.length);
      tiles.push(expert, order.length + start, order.length + end, 0);
    }
    order.push(...pairs);
  }
  const limit = tileLimit(experts.length, expertCount, tileSize);
  assert.ok(tiles.length <= 4 * limit, "the limit holds all tiles");
  return { order, tiles: [...tiles, ...new Array(4 * limit - tiles.length).fill(0)] };
}

async function run(gpu: Gpu, experts: Uint32Array, expertCount: number, tileSize: number) {
  const limit = tileLimit(experts.length, expertCount, tileSize);
  const buffers = [experts.length, 4 * limit, 2 * expertCount].map((count) => ({
    output: guarded(gpu, count),
    buffer: upload(gpu, new Uint32Array(count).fill(7)),
    count,
  }));
  const [order, tiles, expertUse] = buffers.map(({ buffer }) => buffer) as [
    GPUBuffer,
    GPUBuffer,
    GPUBuffer,
  ];
  const recorder = new Recorder(gpu);
  const grouping = {
    experts: upload(gpu, experts),
    order,
    tiles,
    expertUse,
    useOffset: expertCount,
  };
  const pipeline = await compileGroupTokens(gpu, expertCount);
  groupTokens(recorder, pipeline, grouping, experts.length, tileSize);
  const words: number[][] = [];
  for (const { buffer, output, count } of buffers) {
    recorder.copy(buffer, 0, output.buffer, output.offset, output.bytes);
    const floats = await takeGuarded(gpu, output, recorder);
    words.push([...new Uint32Array(floats.buffer, floats.byteOffset, count)]);
  }
  return { order: words[0]!, tiles: words[1]!, use: words[2]! };
}

withGpu("groupTokens() sorts stably, cuts tiles and counts use", async (gpu) => {
  const random = randomSource(SEED);
  const cases = [[1, 1], [1, 12], [3, 12], [993, 12], [24, 256], [2_648, 256], [400, 1]] as const;
  for (const [pairCount, expertCount] of cases) {
    for (const tileSize of [4, 32]) {
      const skewed = () => Math.floor(random() ** 2 * expertCount);
      const experts = Uint32Array.from({ length: pairCount }, skewed);
      const what = `${pairCount} pairs, ${expertCount} experts, tiles of ${tileSize}`;
      const wanted = reference(experts, expertCount, tileSize);
      const found = await run(gpu, experts, expertCount, tileSize);
      assert.deepEqual(found.order, wanted.order, what);
      assert.deepEqual(found.tiles, wanted.tiles, what);
      const use = new Array(2 * expertCount).fill(7);
      for (const expert of experts) use[expertCount + expert]++;
      assert.deepEqual(found.use, use, what);
    }
  }
});

withGpu("groupTokens() handles one expert that takes everything", async (gpu) => {
  const experts = new Uint32Array(331).fill(11);
  const found = await run(gpu, experts, 12, 32);
  const wanted = reference(experts, 12, 32);
  assert.deepEqual(found.order, wanted.order);
  assert.deepEqual(found.tiles, wanted.tiles);
});
