import { spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel } from "./gpu/kernel.ts";
import { type Recorder, write } from "./gpu/recorder.ts";
import { Matrix } from "./matrix.ts";
import { onlyPart, readScales, readWhole } from "./scratch.ts";
import { SCALE_PARAMS, scaleParams, segmentCount, weightPreludes } from "./weight_preludes.ts";
import source from "./widen_rows.wgsl" with { type: "text" };

const PARAMS = { rows: "u32", segments: "u32", ...SCALE_PARAMS } as const;

const THREADS = 64;

export const widenRowsKernel = defineKernel({
  name: "widen_rows",
  source,
  bindings: ["read", "read", "write"],
  params: PARAMS,
});

/**
 * Float matrices of one part each as f32 without scales, behind one another in one buffer. The
 * originals must live until what is recorded has run.
 */
export async function widenRows(
  gpu: Gpu,
  recorder: Recorder,
  label: string,
  matrices: readonly Matrix[],
): Promise<Matrix[]> {
  const specs = matrices.map(({ spec }) => ({ ...spec, format: "f32", scale: null } as const));
  const wide = Matrix.allocateTogether(gpu, label, specs);
  for (const [index, matrix] of matrices.entries()) {
    const { spec } = matrix;
    const pipeline = await widenRowsKernel.compile(gpu, {}, weightPreludes(spec.format));
    const { buffer, offset, bytes } = onlyPart(wide[index]!);
    const segments = segmentCount(spec.columns);
    recorder.dispatch(
      pipeline,
      [readWhole(matrix), readScales(matrix), write(buffer, offset, bytes)],
      { rows: spec.rows, segments, ...scaleParams(spec) },
      spread(Math.ceil(spec.rows * segments / THREADS)),
    );
  }
  return wide;
}
