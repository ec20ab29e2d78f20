/**
 * The least that a step's kernels have to move and to compute, from the model's shape and formats.
 *
 * Bytes: weights with their scales, once a step however many rows it has; of routed experts those
 * that a row chose, once a layer, though a kernel may read them once a row; latents of all earlier
 * positions and the step's own, once a sequence; KDA states, read and written. Activations,
 * intermediate results, norms and the embedding are left out: what is here is a lower bound, and so
 * are rates and shares. Kernels of which none of this is known are left out whole.
 *
 * Operations: a multiplication and an addition are two. Of q8 and q4 weights they are integer ones.
 */
import { isGrouped } from "../../kernels/matrix.ts";
import { MATVEC_ROWS_MAX } from "../../kernels/projection.ts";
import type { ModelShape, TensorSpec } from "../model/device.ts";
import { residentBytes } from "../weights/resident.ts";

/** Of all dispatches of a kernel in a step. */
export interface KernelWork {
  bytes: number;
  integerOperations: number;
  floatOperations: number;
}

/** A step whose work is asked for. */
export interface WorkStep {
  readonly shape: ModelShape;
  readonly specs: readonly TensorSpec[];
  readonly sequences: readonly { readonly past: number; readonly rowCount: number }[];
  /** Rows whose logits are wanted. */
  readonly logitRows: number;
  /** Experts that any row chose, of each MoE layer. */
  readonly chosenExperts: readonly number[];
  /** Of an element of the cache. */
  readonly latentBytes: number;
  /** Names of the kernels that ran: they tell which way a step took. */
  readonly kernels: ReadonlySet<string>;
}

/** For few rows, and for several. */
const UP = ["decode_up", "decode_experts"];
/** For several rows, whose gates are computed before, and for few. */
const UPDATE = ["decode_kda_update", "decode_kda_step"];
/** Kernels of sequences with one row, by the weights that they read; the first that ran. */
const FUSED: readonly (readonly [RegExp, ...string[]])[] = [
  [/^kda\.([qkvb]|f_a|g_a|[qkv]_conv)$/, "decode_kda_in"],
  [/^kda\.(f_b|g_b|a_log|dt_bias)$/, "decode_kda_gates", "decode_kda_step"],
  [/^kda\.o_norm$/, ...UPDATE],
  [/^(kda\.o|mla\.o|dense\.down|moe\.router)$/, "decode_out"],
  [/^mla\.(q|kv_a)$/, "decode_mla_in"],
  [/^(dense|moe|shared)\.(gate|up)$/, ...UP],
  [/^(moe|shared)\.down$/, "decode_down"],
];
/** Weights that are f32 and no factor of a product; only the fused kernels' are counted. */
const SMALL = /norm|_bias$|_log$|_conv$/;

/** By kernel; only kernels that ran. */
export function kernelWork(step: WorkStep): Map<string, KernelWork> {
  const work = new WorkTable(step.kernels);
  for (const spec of step.specs) addWeight(work, step, spec);
  addKda(work, step);
  addMla(work, step);
  return work.kernels;
}

class WorkTable {
  readonly kernels = new Map<string, KernelWork>();

  constructor(private readonly ran: ReadonlySet<string>) {}

  /** Adds to the first of `names` that ran. */
  add(names: readonly string[], more: Partial<KernelWork>): void {
    const name = names.find((candidate) => this.ran.has(candidate));
    if (name === undefined) return;
    const none = { bytes: 0, integerOperations: 0, floatOperations: 0 };
    const sum = this.kernels.get(name) ?? none;
    sum.bytes += more.bytes ?? 0;
    sum.integerOperations += more.integerOperations ?? 0;
    sum.floatOperations += more.floatOperations ?? 0;
    this.kernels.set(name, sum);
  }
}

function rowsOf({ sequences }: WorkStep): number {
  return sequences.reduce((sum, { rowCount }) => sum + rowCount, 0);
}

function addWeight(work: WorkTable, step: WorkStep, spec: TensorSpec): void {
  const [, layerText, name = spec.key] = /^(\d+)\.(.+)$/.exec(spec.key) ?? [];
  if (name === "embed" || name === "norm" || name === "mla.kv_b") return;
  if (name === "head") {
    const names = ["decode_head", ...plainKernels(spec, step.logitRows)];
    return work.add(names, product(spec, step.logitRows, 1));
  }
  const rows = rowsOf(step);
  const isStack = /^moe\.(gate|up|down)$/.test(name);
  const [, ...fused] = FUSED.find(([pattern]) => pattern.test(name)) ?? [];
  if (isFused(step)) {
    if (isStack) return work.add(fused, expertProduct(step, spec, Number(layerText)));
    const vector = { bytes: 4 * spec.rows * spec.columns };
    const small = SMALL.test(name) ? vector : product(spec, rows, 1);
    return work.add(fused, small);
  }
  if (SMALL.test(name)) return;
  if (isStack || isStacked(step, spec, name)) {
    const own = isStack ? expertProduct(step, spec, Number(layerText)) : product(spec, rows, 1);
    const floats = ["expert_matvec", "expert_matmul"];
    return work.add(isGrouped(spec.format) ? ["q_expert_matmul"] : floats, own);
  }
  work.add(plainKernels(spec, rows), product(spec, rows, 1));
}

/** Whether single rows went through the fused kernels. */
function isFused({ kernels }: WorkStep): boolean {
  return UP.some((name) => kernels.has(name));
}

/** Whether a shared expert's matrix is the last one of the routed experts' stack. */
function isStacked({ specs }: WorkStep, spec: TensorSpec, name: string): boolean {
  if (!name.startsWith("shared.") || !isGrouped(spec.format)) return false;
  const stack = specs.find(({ key }) => key === spec.key.replace(".shared.", ".moe."));
  const { format, rows, columns } = stack ?? {};
  return format === spec.format && rows === spec.rows && columns === spec.columns;
}

/** Kernels that a matrix used alone may go through. */
function plainKernels(spec: TensorSpec, rows: number): string[] {
  if (isGrouped(spec.format)) return ["q_matmul"];
  return [rows <= MATVEC_ROWS_MAX ? "matvec" : "matmul"];
}

/** Of `rows` rows with a matrix, of which `matrices` are read. */
function product(spec: TensorSpec, rows: number, matrices: number): Partial<KernelWork> {
  const operations = 2 * rows * spec.rows * spec.columns;
  return {
    bytes: residentBytes(spec) / spec.matrices * matrices,
    [isGrouped(spec.format) ? "integerOperations" : "floatOperations"]: operations,
  };
}

function expertProduct(step: WorkStep, spec: TensorSpec, layer: number): Partial<KernelWork> {
  const { layers, moe } = step.shape;
  const index = layers.slice(0, layer).filter(({ feedForward }) => feedForward === "moe").length;
  return product(spec, rowsOf(step) * moe.expertsPerToken, step.chosenExperts[index] ?? 0);
}

/** States, and the arithmetic of single rows: decay, prediction, update and output. */
function addKda(work: WorkTable, { shape, sequences }: WorkStep): void {
  const { headCount, keyDim, valueDim, convolutionTaps } = shape.kda;
  const layers = shape.layers.filter(({ mixer }) => mixer === "kda").length;
  const state = headCount * keyDim * valueDim;
  const tails = (convolutionTaps - 1) * headCount * (2 * keyDim + valueDim);
  const [read, written] = [4, 4];
  const count = layers * sequences.length;
  work.add(["decode_kda_in", "short_conv"], { bytes: count * (read + written) * tails });
  const single = layers * sequences.filter(({ rowCount }) => rowCount === 1).length;
  work.add([...UPDATE, "kda_step"], {
    bytes: single * (read + written) * state,
    floatOperations: single * 7 * state,
  });
}

function addMla(work: WorkTable, step: WorkStep): void {
  const { shape, specs, sequences, latentBytes } = step;
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape.mla;
  const layers = shape.layers.filter(({ mixer }) => mixer === "mla").length;
  const entry = latentDim + sharedKeyDim;
  let [singles, absorbed, expanded, pairs] = [0, 0, 0, 0];
  for (const { past, rowCount } of sequences) {
    if (rowCount === 1) singles++;
    if (rowCount === 1) absorbed += past + 1;
    else expanded += past + rowCount;
    if (rowCount > 1) pairs += rowCount * past + rowCount * (rowCount + 1) / 2;
  }
  const bytes = layers * latentBytes * entry;
  if (absorbed > 0) {
    work.add(["decode_attention", "mla_attention"], {
      bytes: bytes * absorbed,
      floatOperations: layers * absorbed * headCount * 2 * (entry + latentDim),
    });
  }
  if (expanded > 0) {
    work.add(["mla_gather"], { bytes: bytes * expanded });
    const widths = nopeDim + sharedKeyDim + valueDim;
    work.add(["mla_prefill"], { floatOperations: layers * pairs * headCount * 2 * widths });
  }
  for (const spec of specs.filter(({ key }) => key.endsWith(".mla.kv_b"))) {
    const half = (names: string[], dim: number) => {
      const share = dim / (nopeDim + valueDim);
      const floatOperations = 2 * singles * spec.rows * spec.columns * share;
      if (singles > 0) work.add(names, { bytes: residentBytes(spec) * share, floatOperations });
    };
    half(["decode_absorb", "mla_absorb"], nopeDim);
    half(["decode_values", "mla_value"], valueDim);
    const floatOperations = 2 * expanded * spec.rows * spec.columns;
    if (expanded > 0) work.add(["matmul"], { bytes: residentBytes(spec), floatOperations });
  }
}
