/**
 * The seam between the model and what computes it.
 *
 * A device runs blocks, not kernels: each block reads and writes the residual stream of a step's
 * rows, and the device fuses inside a block as it likes. `kernels/` and `wasm/` satisfy these types
 * structurally and import nothing of `runtime/`.
 *
 * Life of a device: `declare` -> `write`, scales for each tensor -> `configure` -> steps.
 * One step: `begin(plan)`, `embed()`, per layer one mixer and one feed-forward block, `logits()`,
 * `finish()`. The next step may begin before the result of the last one is taken, but not one more.
 */

/**
 * How the elements of a weight matrix are stored. `fp8` is e4m3fn (no infinities, NaN 0x7f). `q8`
 * and `q4` are symmetric integers in groups of 32 columns with an f16 scale each: value[r][c] =
 * q[r][c] * scale[r][floor(c / 32)]. q8: one signed byte an element. q4: two elements a byte, the
 * even column in the low half, each stored as q + 8, q from -8 to 7.
 */
export type WeightFormat = "f32" | "f16" | "bf16" | "fp8" | "q8" | "q4";

/**
 * One weight as the device holds it: `matrices` matrices of [rows, columns], row-major, y = W x.
 * Vectors have rows = 1. Keys are listed in `weights/names.ts`.
 */
export interface TensorSpec {
  readonly key: string;
  readonly format: WeightFormat;
  /** Experts stacked under one key; 1 for everything else. */
  readonly matrices: number;
  readonly rows: number;
  readonly columns: number;
  /**
   * fp8 only, else null. value[r][c] = element[r][c] * scale[floor(r / rowsPerScale)]
   * [floor(c / columnsPerScale)]; the scale grid is [ceil(rows / rowsPerScale),
   * ceil(columns / columnsPerScale)], row-major, f32.
   */
  readonly scale: { readonly rowsPerScale: number; readonly columnsPerScale: number } | null;
}

/** Sizes of the model, from config.json. Nothing may assume 128 or powers of two. */
export interface ModelShape {
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly layers: readonly LayerShape[];
  /** Epsilon of every RMS norm but the latent's. */
  readonly normEpsilon: number;
  /** Epsilon of the norm over the MLA latent (the reference keeps 1e-6 there). */
  readonly latentNormEpsilon: number;
  readonly kda: KdaShape;
  readonly mla: MlaShape;
  readonly denseIntermediateSize: number;
  readonly moe: MoeShape;
}

export interface LayerShape {
  readonly mixer: "kda" | "mla";
  readonly feedForward: "dense" | "moe";
}

export interface KdaShape {
  readonly headCount: number;
  /** d_k of every head. */
  readonly keyDim: number;
  /** d_v of every head (equal to keyDim in the published config; kept apart so that tests catch a
   * transposed state). */
  readonly valueDim: number;
  /** Taps of the short convolution; taps - 1 earlier projections are kept as state. */
  readonly convolutionTaps: number;
}

export interface MlaShape {
  readonly headCount: number;
  /** Width of the latent c (kv_lora_rank). */
  readonly latentDim: number;
  /** Query/key channels per head that come from the latent (qk_nope_head_dim). */
  readonly nopeDim: number;
  /** Query channels per head paired with the one shared key (qk_rope_head_dim); never rotated. */
  readonly sharedKeyDim: number;
  readonly valueDim: number;
}

export interface MoeShape {
  readonly expertCount: number;
  readonly expertsPerToken: number;
  /** Width of each routed expert. */
  readonly intermediateSize: number;
  /** Width of the shared expert: shared count x expert width; 0 for none. */
  readonly sharedIntermediateSize: number;
  /** Multiplies the routed weights after renormalisation. */
  readonly routedScale: number;
  readonly renormalize: boolean;
}

/** What a device allocates once, before it serves. */
export interface Capacity {
  /** Sequences that can hold state at once. */
  readonly slots: number;
  /** Pages of the latent cache, shared by all sequences; each spans every MLA layer. */
  readonly pages: number;
  /** Tokens in one page. */
  readonly pageTokens: number;
  /** Rows (tokens) of the largest step. */
  readonly rows: number;
  /** Rows of one step whose logits can be asked for. */
  readonly logitRows: number;
  /** Most sequences in one step. */
  readonly sequences: number;
  /** Most pages one sequence may use. */
  readonly pagesPerSequence: number;
  /** Most edits of logits in one step, over all its rows. */
  readonly logitEdits: number;
  /** How latents are stored: f16 to serve, f32 for comparison with an oracle. */
  readonly latentFormat: "f16" | "f32";
}

/** What `configure` spent on kernels, in seconds of its own thread. */
export interface Compilation {
  readonly kernels: number;
  /** Shaders read and checked. */
  readonly shaderSeconds: number;
  /** Pipelines made of them, by the driver. */
  readonly pipelineSeconds: number;
}

/** One sequence's part of a step: rows [rowStart, rowStart + rowCount) are its next tokens. */
export interface StepSequence {
  readonly slot: number;
  readonly rowStart: number;
  readonly rowCount: number;
  /** Tokens of this sequence that earlier steps have processed: the position of its first row. */
  readonly past: number;
  /** Pages that hold positions [0, past + rowCount), in order: page p holds positions
   * [p * pageTokens, (p + 1) * pageTokens). */
  readonly pages: Uint32Array;
}

/**
 * Changes to a row of logits before anything is chosen from it, each id once:
 * l' = (l > 0 ? l / divide : l * divide) + add. The first half is the repetition penalty of CTRL
 * (Keskar et al. 2019, section 4.1), the second takes biases and the other penalties.
 */
export interface LogitEdits {
  readonly ids: Uint32Array;
  readonly divide: Float32Array;
  readonly add: Float32Array;
}

/** What is wanted of one row of logits. */
export interface LogitRow {
  /** The step's row whose logits these are; ascending over the plan. */
  readonly row: number;
  readonly edits: LogitEdits | null;
  /** > 0: also wanted is the log-sum-exp of logits / temperature. */
  readonly temperature: number;
  /** An id whose logit is wanted, or null. */
  readonly target: number | null;
  /**
   * Gives the bit mask of the tokens that may come, [ceil(vocabularySize / 32)]: bit i % 32 of word
   * i / 32 is token i's. It applies behind the edits: logits of all other tokens become -Infinity,
   * which `nonFinite` does not count. Called once, by `logits`, while the layers run where the
   * device can; what it returns holds until the next one is called. null: nothing is masked.
   */
  readonly mask: (() => Uint32Array | null) | null;
}

/** What one step computes. Sequences tile the rows in order, without gaps. */
export interface StepPlan {
  /** Token ids, [rows]. */
  readonly tokens: Uint32Array;
  /**
   * Where a row's token is not known yet: index of the logit row of the step before, which may
   * still run, whose best token it is; -1 elsewhere. [rows], or null when all are known.
   */
  readonly feeds: Int32Array | null;
  readonly sequences: readonly StepSequence[];
  readonly logits: readonly LogitRow[];
}

/** The best of each row of logits, and the sums that turn logits into probabilities. */
export interface Candidates {
  /** Of each row. */
  readonly count: number;
  /** [rows, count]: largest logit first, of equal ones the lower id first. */
  readonly ids: Uint32Array;
  /** [rows, count], after edits and masks. */
  readonly logits: Float32Array;
  /** [rows]: ln of the sum of exp(logit). */
  readonly logSumExp: Float32Array;
  /** [rows]: ln of the sum of exp(logit / temperature); 0 where the temperature is 0. */
  readonly scaledLogSumExp: Float32Array;
  /** [rows]: the target's logit, after edits; 0 where there is none. */
  readonly targets: Float32Array;
}

export interface StepResult {
  /** One per logit row: 1 where any logit of the row is NaN or infinite, masked or not, else 0. */
  readonly nonFinite: Uint8Array;
  /** null on a device whose whole rows cost nothing to read. */
  readonly candidates: Candidates | null;
  /**
   * One whole row after edits and masks, [vocabularySize]. Only until the next `begin`, which may
   * overwrite it.
   */
  readRow(index: number): Promise<Float32Array>;
}

/** A step that was started. */
export interface PendingStep {
  /**
   * Waits for the step and takes its results; once. Steps are taken in the order they were started.
   * Rejects when the device was lost.
   */
  result(): Promise<StepResult>;
}

/** KDA state of one layer and slot, for tests and snapshots. */
export interface KdaState {
  /** [headCount, keyDim, valueDim]. */
  readonly recurrent: Float32Array;
  /** Pre-convolution projections of the last taps - 1 tokens, oldest first:
   * [taps - 1, 3 x channels], where each row is q | k | v (channels headCount x keyDim, the same,
   * headCount x valueDim). */
  readonly convolution: Float32Array;
}

/** The time of one dispatch. */
export interface DispatchTime {
  readonly kernel: string;
  readonly nanoseconds: number;
}

export interface Device {
  /** "cpu" or "webgpu". */
  readonly kind: string;
  /** The adapter or engine, for people: "NVIDIA H100", "WASM relaxed SIMD". */
  readonly description: string;
  /** A GPU that a CPU imitates: right, and slower than anything else by far. */
  readonly isSoftware: boolean;
  /**
   * Tokens of the pieces that prefill is computed in. A sequence's results have the same bits
   * whatever else is in its steps where each of its steps of several rows begins at a multiple of
   * this and ends at one, or at the prompt's end but not one row behind a multiple.
   */
  readonly pieceTokens: number;
  /** Whether a plan may have `feeds`. */
  readonly feedsTokens: boolean;

  /**
   * Allocates every weight. Called once. Throws an error with a clear message where it does not
   * fit.
   */
  declare(tensors: readonly TensorSpec[]): void;
  /** Copies a piece of one matrix: `bytes` start at `byteOffset` within matrix `matrix` of `key`.
   * Pieces of a matrix arrive in order, begin and end on element borders, and may have any
   * length. Rows of q8 and q4 are whole groups of 32 columns; those beyond the last one are q = 0,
   * which q4 stores as 8. */
  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void;
  /** All scales of one fp8 matrix. */
  writeScales(key: string, matrix: number, scales: Float32Array): void;
  /**
   * Copies a piece of the scales of one q8 or q4 matrix: f16, little-endian, [rows][groups rounded
   * up to an even count], from byte `byteOffset` on. Pieces begin and end on row borders.
   */
  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void;
  /** Ends loading: builds pipelines, allocates state for `capacity`. Called once. */
  configure(capacity: Capacity): Promise<void>;

  /** Sets a slot's KDA state to zero in every KDA layer. */
  zeroSlot(slot: number): void;
  /** Reads KDA state of layer `layer` (index into shape.layers). */
  readState(layer: number, slot: number): Promise<KdaState>;
  /**
   * Reads latents of MLA layer `layer` at positions [0, count): [count, latentDim + sharedKeyDim].
   */
  readLatents(layer: number, pages: Uint32Array, count: number): Promise<Float32Array>;
  /**
   * Reads the residual stream of the step's rows, [rows, hiddenSize]; between blocks, for tests.
   */
  readResidual(): Promise<Float32Array>;
  /** Reads the experts chosen by the last `moe` block, [rows, expertsPerToken], best first. */
  readRouting(): Promise<{ experts: Uint32Array; weights: Float32Array }>;
  /**
   * Tokens routed to each expert since the last call, [MoE layers in order][expertCount]; resets.
   */
  takeExpertUse(): Promise<Uint32Array>;

  begin(plan: StepPlan): void;
  /** residual = embedding rows of plan.tokens. */
  embed(): void;
  /** residual += KDA mixer(RMSNorm(residual)), and the slots' states advance. */
  kda(layer: number): void;
  /** residual += MLA mixer(RMSNorm(residual)), and the rows' latents are written to their pages. */
  mla(layer: number): void;
  /** residual += down(SiLU(gate x) * (up x)) of x = RMSNorm(residual). */
  dense(layer: number): void;
  /** residual += routed experts + shared expert of RMSNorm(residual). */
  moe(layer: number): void;
  /** Final norm, head, edits and masks for the rows of plan.logits. */
  logits(): void;
  /** Starts the step. Its result must be taken before any other read. */
  finish(): PendingStep;
  /**
   * Times of the dispatches of what `run` records and waits for, in order; null where the device
   * can't tell. Only for measuring: dispatches do not overlap then.
   */
  timeDispatches(run: () => Promise<void>): Promise<readonly DispatchTime[] | null>;
  /** Dispatches recorded by the last step (0 where the word means nothing). */
  readonly dispatchCount: number;
  /** All zeros where the device compiles nothing. */
  readonly compilation: Compilation;
  /** Most bytes of one layer's latents; Infinity where nothing but memory limits them. */
  readonly bufferBytesMax: number;
  /** Bytes that `declare` and `configure` allocated; constant afterwards. */
  readonly allocatedBytes: number;
  /** Releases everything. The device can't be used afterwards. */
  destroy(): void;
}
