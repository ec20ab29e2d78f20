import source from "./decode_prepare.wgsl" with { type: "text" };
import { groupLiterals, groupPieces, pieces, type RowFormat } from "./decode_shape.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { type BufferUse, type Recorder } from "./gpu/recorder.ts";
import { groupCount } from "./matrix.ts";

const PARAMS = {
  columns: "u32",
  groups: "u32",
  even_first: "u32",
} as const;

const THREADS = 256;

export type DecodePreparePipeline = Pipeline<typeof PARAMS>;

export const decodePrepareKernel = defineKernel({
  name: "decode_prepare",
  source,
  bindings: ["read", "read", "read", "write", "write"],
  params: PARAMS,
});

export interface DecodePrepareBuffers {
  /** read: u32 [rowCount]. */
  readonly rows: BufferUse;
  /** read: f32 [..][columns]. */
  readonly residual: BufferUse;
  /** read: f32 [columns]. */
  readonly weight: BufferUse;
  /** write: activation groups [rowCount][X_QUADS][groups]. */
  readonly groups: BufferUse;
  /** write: f32 [rowCount][columns]. */
  readonly scaled: BufferUse;
}

/** `format`: of the matrix that follows. */
export function compileDecodePrepare(gpu: Gpu, format: RowFormat): Promise<DecodePreparePipeline> {
  const preludes = [...pieces("x_group"), ...groupPieces(format)];
  return decodePrepareKernel.compile(gpu, {}, preludes, groupLiterals(format, THREADS));
}

/** The rows of the residual that `rows` names. */
export function decodePrepare(
  recorder: Recorder,
  pipeline: DecodePreparePipeline,
  { rows, residual, weight, groups, scaled }: DecodePrepareBuffers,
  sizes: {
    readonly columns: number;
    readonly rowCount: number;
    readonly evenFirst: number;
  },
): void {
  const { columns, rowCount, evenFirst } = sizes;
  recorder.dispatch(
    pipeline,
    [rows, residual, weight, groups, scaled],
    {
      columns,
      groups: groupCount(columns),
      even_first: evenFirst,
    },
    [Math.ceil(columns / THREADS), rowCount],
  );
}
