import { combineExperts, compileCombineExperts } from "../../kernels/combine_experts.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { compileSiluMul, siluMul } from "../../kernels/silu_mul.ts";
import { silu } from "../reference/activations.ts";
import { normals, randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertClose, assertSameBits, randomRows } from "./weights.ts";

const SEED = 71;

withGpu("siluMul() agrees with the reference, large and small gates included", async (gpu) => {
  const random = randomSource(SEED);
  const pipeline = await compileSiluMul(gpu);
  for (const [width, rowCount] of [[1, 1], [40, 331], [777, 3]] as const) {
    const gateUp = randomRows(random, rowCount, 2 * width, 2 * width);
    gateUp.set([-1e4, 200, -200, 0, 88.8, -88.8].slice(0, width));
    const run = async () => {
      const output = guarded(gpu, rowCount * width);
      const y = gpu.buffer("y", output.bytes);
      const recorder = new Recorder(gpu);
      siluMul(recorder, pipeline, upload(gpu, gateUp), y, width, rowCount);
      recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
      return await takeGuarded(gpu, output, recorder);
    };
    const found = await run();
    const wanted = Float64Array.from(found, (_, i) => {
      const gate = Math.floor(i / width) * 2 * width + i % width;
      return silu(gateUp[gate]!) * gateUp[gate + width]!;
    });
    assertClose(found, wanted, width, `width ${width}`);
    assertSameBits(await run(), found, `width ${width}, again`);
  }
});

withGpu("combineExperts() adds the weighted outputs to what is there", async (gpu) => {
  const random = randomSource(SEED + 1);
  const pipeline = await compileCombineExperts(gpu);
  for (const [width, rowCount, choices] of [[1, 1, 1], [120, 331, 3], [77, 5, 8]] as const) {
    const outputs = randomRows(random, rowCount * choices, width, width);
    const weights = normals(random, rowCount * choices);
    const before = normals(random, rowCount * width);
    const run = async () => {
      const output = guarded(gpu, rowCount * width);
      const y = upload(gpu, before);
      const recorder = new Recorder(gpu);
      const sizes = { rowCount, choices, width };
      combineExperts(recorder, pipeline, upload(gpu, outputs), upload(gpu, weights), y, sizes);
      recorder.copy(y, 0, output.buffer, output.offset, output.bytes);
      return await takeGuarded(gpu, output, recorder);
    };
    const found = await run();
    const wanted = Float64Array.from(before, (value, i) => {
      const row = Math.floor(i / width);
      for (let pair = row * choices; pair < (row + 1) * choices; pair++) {
        value += weights[pair]! * outputs[pair * width + i % width]!;
      }
      return value;
    });
    assertClose(found, wanted, width, `width ${width}`);
    assertSameBits(await run(), found, `width ${width}, again`);
  }
});
