/** What the largest workgroups of the fused kernels need of an adapter. */
import { decodeAttentionBytes } from "./decode_attention.ts";
import { CHOICE_THREADS } from "./decode_choose.ts";
import { decodeKdaGatesBytes } from "./decode_kda_gates.ts";
import { decodeKdaStepBytes, STEP_THREADS } from "./decode_kda_step.ts";
import { MATRIX_THREADS, matrixTile, normLiterals } from "./decode_shape.ts";
import { DOWN_LANES, expertThreads, type Tuning, tuningThreads } from "./gpu/tuning.ts";
import type { ModelShape } from "./types.ts";

/** Bytes of workgroup memory of the other kernels that no tuning changes, at most. */
const FIXED_BYTES = 10 * 1_024;
/** Bytes for a value of lib/activation_group.wgsl, which takes more than lib/float_group.wgsl. */
const GROUP_VALUE_BYTES = 12;

/** Bytes of lib/row_sums.wgsl. */
function sumBytes(parts: number, lanes: number, tile: number): number {
  return 4 * parts * lanes * (tile + 4);
}

/** Bytes of lib/row_norm.wgsl. */
function normBytes(rows: number, columns: number, threads: number): number {
  return 16 * rows * normLiterals(columns, threads).NORM_QUADS!;
}

/** Columns of f_b and of g_b. */
type Ranks = readonly [number, number];

/**
 * Threads and bytes of workgroup memory of the largest workgroups of a model; where its `ranks` are
 * not known they are taken to be the published ones, the head's size.
 */
export function decodeWorkgroups(
  tuning: Tuning,
  { hiddenSize, kda, mla, moe }: ModelShape,
  ranks: Ranks = [kda.keyDim, kda.valueDim],
): { readonly threads: number; readonly bytes: number } {
  const { projection, out, up, experts, down, attention, batch } = tuning;
  const blocks = Math.ceil(moe.expertCount / 32);
  const choiceBytes = blocks * (4 * 32 + 12 * moe.expertsPerToken) + 8 * moe.expertsPerToken + 64;
  const threadsOfExperts = expertThreads(tuning);
  const bytes = [
    FIXED_BYTES,
    decodeKdaStepBytes(kda.keyDim, ranks),
    decodeKdaGatesBytes(ranks),
    choiceBytes + normBytes(1, hiddenSize, CHOICE_THREADS),
    sumBytes(batch.rows, projection.lanes, matrixTile(tuning, batch.steps)) +
    normBytes(batch.rows, hiddenSize, MATRIX_THREADS),
    sumBytes(batch.rows, out.lanes, 32) + GROUP_VALUE_BYTES * 32 * batch.rows,
    sumBytes(2, up.lanes, up.tile) + normBytes(1, hiddenSize, up.tile * up.lanes) +
    GROUP_VALUE_BYTES * up.tile + choiceBytes,
    sumBytes(2 * experts.rows, up.lanes, experts.tile) +
    normBytes(experts.rows, hiddenSize, threadsOfExperts) + GROUP_VALUE_BYTES * threadsOfExperts,
    sumBytes(down.parts, DOWN_LANES, 32) + GROUP_VALUE_BYTES * 32,
    decodeAttentionBytes(mla, attention),
  ];
  const threads = [STEP_THREADS, ...Object.values(tuningThreads(tuning))];
  return { threads: Math.max(...threads), bytes: Math.max(...bytes) };
}

/** Whether an adapter can run the fused kernels of a model with these numbers. */
export function fitsWorkgroups(
  limits: Pick<
    GPUSupportedLimits,
    "maxComputeInvocationsPerWorkgroup" | "maxComputeWorkgroupStorageSize"
  >,
  tuning: Tuning,
  shape: ModelShape,
  ranks?: Ranks,
): boolean {
  const { threads, bytes } = decodeWorkgroups(tuning, shape, ranks);
  return threads <= limits.maxComputeInvocationsPerWorkgroup &&
    bytes <= limits.maxComputeWorkgroupStorageSize;
}
