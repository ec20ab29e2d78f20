import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import sumSource from "./lib/workgroup_sum.wgsl" with { type: "text" };
import source from "./rms_norm.wgsl" with { type: "text" };

const PARAMS = {
  row_count: "u32",
  width: "u32",
  x_stride: "u32",
  y_stride: "u32",
  epsilon: "f32",
} as const;

export const rmsNormKernel = defineKernel({
  name: "rms_norm",
  source,
  preludes: [{ name: "lib/workgroup_sum.wgsl", source: sumSource }],
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

/** RMS norm of rows. */
export class RmsNorm {
  private constructor(private readonly pipeline: Pipeline<typeof PARAMS>) {}

  static async create(gpu: Gpu): Promise<RmsNorm> {
    checkWorkgroupMemory("rms_norm", 4 * 128, gpu.limits);
    return new RmsNorm(await rmsNormKernel.compile(gpu));
  }

  /**
   * y[row][c] = weight[c] x[row][c] / sqrt(mean(x[row]^2) + epsilon) for the first `width` of each
   * of `rowCount` rows: x f32 [rowCount][xStride], weight f32 [width], y f32 [rowCount][yStride].
   * x and y are different buffers.
   */
  normalize(
    recorder: Recorder,
    x: GPUBuffer,
    xStride: number,
    weight: GPUBuffer,
    y: GPUBuffer,
    yStride: number,
    width: number,
    rowCount: number,
    epsilon: number,
  ): void {
    if (xStride < width || yStride < width || weight.size < 4 * width) {
      throw new Error(
        `normalize rows: wanted width ${width} in x, y and weight, ` +
          `found ${xStride}, ${yStride} and ${weight.size / 4}`,
      );
    }
    checkLoops("rms_norm", 2 * Math.ceil(width / 128) + 7);
    recorder.dispatch(
      this.pipeline,
      [read(x), read(weight), write(y)],
      { row_count: rowCount, width, x_stride: xStride, y_stride: yStride, epsilon },
      spread(rowCount),
    );
  }
}
