/**
 * The types of the device seam that the cpu device uses. This folder imports nothing of `runtime/`:
 * they are declared again here, and a test holds them equal to `runtime/model/device.ts`, where the
 * meaning of every field is written.
 */

export type WeightFormat = "f32" | "f16" | "bf16" | "fp8" | "q8" | "q4";

export interface TensorSpec {
  readonly key: string;
  readonly format: WeightFormat;
  readonly matrices: number;
  readonly rows: number;
  readonly columns: number;
  readonly scale: { readonly rowsPerScale: number; readonly columnsPerScale: number } | null;
}

export interface ModelShape {
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly layers: readonly LayerShape[];
  readonly normEpsilon: number;
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
  readonly keyDim: number;
  readonly valueDim: number;
  readonly convolutionTaps: number;
}

export interface MlaShape {
  readonly headCount: number;
  readonly latentDim: number;
  readonly nopeDim: number;
  readonly sharedKeyDim: number;
  readonly valueDim: number;
}

export interface MoeShape {
  readonly expertCount: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  readonly sharedIntermediateSize: number;
  readonly routedScale: number;
  readonly renormalize: boolean;
}

export interface Capacity {
  readonly slots: number;
  readonly pages: number;
  readonly pageTokens: number;
  readonly rows: number;
  readonly logitRows: number;
  readonly sequences: number;
  readonly pagesPerSequence: number;
  readonly logitEdits: number;
  readonly latentFormat: "f16" | "f32";
}

export interface StepSequence {
  readonly slot: number;
  readonly rowStart: number;
  readonly rowCount: number;
  readonly past: number;
  readonly pages: Uint32Array;
}

export interface LogitEdits {
  readonly ids: Uint32Array;
  readonly divide: Float32Array;
  readonly add: Float32Array;
}

export interface LogitRow {
  readonly row: number;
  readonly edits: LogitEdits | null;
  readonly temperature: number;
  readonly target: number | null;
  readonly mask: (() => Uint32Array | null) | null;
}

export interface StepPlan {
  readonly tokens: Uint32Array;
  readonly feeds: Int32Array | null;
  readonly sequences: readonly StepSequence[];
  readonly logits: readonly LogitRow[];
}

export interface StepResult {
  readonly nonFinite: Uint8Array;
  readonly candidates: null;
  readRow(index: number): Promise<Float32Array>;
}

export interface PendingStep {
  result(): Promise<StepResult>;
}

export interface KdaState {
  readonly recurrent: Float32Array;
  readonly convolution: Float32Array;
}
