/** Starts the engine: checks the options, then the first Worker. */
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import { UsageError } from "../errors.ts";
import {
  CONTEXT_TOKENS_DEFAULT,
  DEATHS_MAX,
  MAX_CONTEXT_TOKENS,
  MAX_MEMORY_BYTES,
  QUEUE_REQUESTS_DEFAULT,
  QUEUE_REQUESTS_MAX,
  QUEUE_TOKENS_MAX,
  SLOTS_DEFAULT,
  SLOTS_MAX,
  SLOW_READER_MS,
  WATCHDOG_MS,
} from "../limits.ts";
import type { Engine } from "./engine.ts";
import type { FaultPlan } from "./fault.ts";
import type { WeightChoice } from "../weights/resident.ts";
import type { DeviceChoice } from "./protocol.ts";
import { SupervisedEngine } from "./supervised_engine.ts";
import { type StartProgress, startWorker } from "./worker_thread.ts";

export type { StartProgress } from "./worker_thread.ts";

export interface StartOptions {
  readonly modelDirectory: string;
  readonly device: DeviceChoice;
  /** Shapes of the webgpu device's kernels; undefined: as it finds them itself. */
  readonly tuning?: TuningChoice | undefined;
  /** What weights are kept as; undefined: the best that fits. */
  readonly weights?: WeightChoice | undefined;
  /** Sequences that run at once. */
  readonly slots?: number | undefined;
  /** Most tokens of one sequence; at most the model's own context. */
  readonly contextTokens?: number | undefined;
  /** Most bytes on the device; undefined: as the pools need. */
  readonly memoryBytes?: number | undefined;
  /** Requests that may wait. */
  readonly queueRequests?: number | undefined;
  /** f16 unless results are compared with an oracle. */
  readonly latentFormat?: "f16" | "f32" | undefined;
  /** For tests: what is to go wrong, how soon it is noticed, how often it may. */
  readonly faults?: FaultPlan;
  readonly watchdogMs?: number;
  readonly slowReaderMs?: number;
  readonly deathsMax?: number;
}

/**
 * Starts the Worker, loads the model and resolves when the first request can run.
 * Throws UsageError, ModelError or DeviceError.
 */
export async function startEngine(
  options: StartOptions,
  onProgress: (progress: StartProgress) => void = () => {},
): Promise<Engine> {
  const { slots = SLOTS_DEFAULT, queueRequests = QUEUE_REQUESTS_DEFAULT } = options;
  const { contextTokens, memoryBytes } = options;
  checkRange("--slots", slots, 1, SLOTS_MAX);
  checkRange("--context", contextTokens ?? CONTEXT_TOKENS_DEFAULT, 1, MAX_CONTEXT_TOKENS);
  checkRange("--memory", memoryBytes ?? MAX_MEMORY_BYTES, 1, MAX_MEMORY_BYTES);
  checkRange("--queue", queueRequests, 0, QUEUE_REQUESTS_MAX);
  const engineOptions = {
    modelDirectory: options.modelDirectory,
    device: options.device,
    tuning: options.tuning,
    weights: options.weights,
    slots,
    contextTokens,
    memoryBytes,
    latentFormat: options.latentFormat ?? "f16",
    faults: options.faults ?? [],
    life: 0,
  };
  const started = await startWorker(engineOptions, onProgress);
  return new SupervisedEngine(started, engineOptions, {
    admission: { slots, queueRequests, queueTokens: QUEUE_TOKENS_MAX },
    watchdogMs: options.watchdogMs ?? WATCHDOG_MS,
    slowReaderMs: options.slowReaderMs ?? SLOW_READER_MS,
    deathsMax: options.deathsMax ?? DEATHS_MAX,
  });
}

function checkRange(flag: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UsageError(
    `read ${flag}: wanted a whole number from ${least} to ${most}, found ${value}`,
  );
}
