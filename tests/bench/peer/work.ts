/** The work that both sides do, and how a side in a process of its own is asked for it. */

import type { WeightChoice } from "../../../runtime/weights/resident.ts";

/** Kedge's name among the sides. */
export const KEDGE = "Kedge";

/** A prompt of random ids until its first token; or `batch` texts decoded greedily. */
export type Work =
  | { readonly kind: "prefill"; readonly promptTokens: number }
  | {
    readonly kind: "decode";
    readonly batch: number;
    readonly promptTokens: number;
    readonly tokens: number;
    /** Feeds a fixed token instead of choosing one, as llama-bench does. llama.cpp only. */
    readonly bare: boolean;
  };

export interface Measured {
  /** Prompt tokens of a prefill, or decoded tokens of all texts together. */
  readonly tokensPerSecond: number;
}

/** A side's first line. */
export interface Ready {
  readonly description: string;
  readonly modelBytes: number;
}

/** A loaded model. */
export interface Side {
  readonly ready: Ready;
  run(work: Work, seed: number): Promise<Measured>;
  close(): Promise<void>;
}

export interface SideOptions {
  readonly engine: "kedge" | "llama";
  /** Model folder, or GGUF for llama. */
  readonly model: string;
  readonly device: "cpu" | "webgpu";
  readonly threads: number;
  /** Whether llama.cpp may choose it. */
  readonly flashAttention: boolean;
  /** What Kedge keeps weights as. */
  readonly weights?: WeightChoice | undefined;
  /** Texts at once, and the most tokens of each. */
  readonly sequences: number;
  readonly contextTokens: number;
  readonly vocabularySize: number;
}

/** One line to a side; its answer is one Measured. */
export interface Request {
  readonly work: Work;
  readonly seed: number;
}
