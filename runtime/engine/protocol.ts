/** Messages between the main thread and the engine's Worker. Plain data only. */
import {
  DeviceError,
  EngineError,
  KedgeError,
  ModelError,
  OverloadedError,
  RequestError,
  UsageError,
} from "../errors.ts";
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import type { EngineStats, GenerateEvent, GenerateRequest, ModelInfo } from "./engine.ts";
import type { WeightChoice } from "../weights/resident.ts";
import type { FaultPlan } from "./fault.ts";

export type DeviceChoice = "auto" | "webgpu" | "cpu";

export interface EngineOptions {
  readonly modelDirectory: string;
  readonly device: DeviceChoice;
  /** Shapes of the webgpu device's kernels; undefined: as it finds them itself. */
  readonly tuning?: TuningChoice | undefined;
  /** What weights are kept as; undefined: the best that fits. */
  readonly weights: WeightChoice | undefined;
  /** Sequences that run at once. */
  readonly slots: number;
  /** Most tokens of one sequence; undefined: the model's own, up to a default bound. */
  readonly contextTokens: number | undefined;
  /** Most bytes on the device: weights, states, latents, scratch. undefined: as the pools need. */
  readonly memoryBytes: number | undefined;
  readonly latentFormat: "f16" | "f32";
  readonly faults: FaultPlan;
  /** Workers that this engine had before. */
  readonly life: number;
}

export type ToWorker =
  | { readonly type: "start"; readonly options: EngineOptions }
  | { readonly type: "submit"; readonly id: number; readonly request: GenerateRequest }
  | { readonly type: "cancel"; readonly id: number }
  /** The request's reader fell behind, or caught up. */
  | { readonly type: "pause"; readonly id: number; readonly paused: boolean }
  | { readonly type: "expertUse" }
  | { readonly type: "close" };

/** An error as it crosses the thread: class by name, and what its constructor took. */
export interface WireError {
  readonly name: string;
  readonly message: string;
  readonly code: string | null;
  readonly param: string | null;
}

export type FromWorker =
  | {
    readonly type: "loading";
    readonly device: string;
    /** What the weights are kept as, for people. */
    readonly weights: string;
    /** Of the weights on the device. */
    readonly bytes: number;
  }
  | { readonly type: "progress"; readonly done: number; readonly total: number }
  | { readonly type: "ready"; readonly model: ModelInfo; readonly stats: EngineStats }
  | { readonly type: "failed"; readonly error: WireError }
  /** The answer to "close": the device is released and the Worker ends. */
  | { readonly type: "closed" }
  /** What one step produced, for all requests together. */
  | {
    readonly type: "step";
    readonly events: PackedEvents;
    readonly stats: EngineStats;
  }
  | { readonly type: "expertUse"; readonly expertCount: number; readonly tokens: Float64Array };

export type RequestEvent =
  | { readonly id: number; readonly event: GenerateEvent }
  | { readonly id: number; readonly error: WireError };

/**
 * Events in order. A token without log-probabilities is two numbers, the request's id and its own:
 * an object takes the reading thread ten times as long.
 */
export type PackedEvents = readonly (number | RequestEvent)[];

export function packEvents(events: readonly RequestEvent[]): PackedEvents {
  return events.flatMap((item): (number | RequestEvent)[] =>
    "event" in item && item.event.type === "token" && item.event.logprob === null
      ? [item.id, item.event.id]
      : [item]
  );
}

/** Calls `take` for each event, in order. */
export function unpackEvents(
  events: PackedEvents,
  take: (id: number, event: GenerateEvent | KedgeError) => void,
): void {
  for (let at = 0; at < events.length; at++) {
    const item = events[at]!;
    if (typeof item === "number") {
      take(item, { type: "token", id: events[++at] as number, logprob: null });
    } else take(item.id, "event" in item ? item.event : fromWire(item.error));
  }
}

export function toWire(error: unknown): WireError {
  if (error instanceof KedgeError) {
    return { name: error.name, message: error.message, code: error.code, param: error.param };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { name: "EngineError", message, code: null, param: null };
}

export function fromWire(error: WireError): KedgeError {
  switch (error.name) {
    case "UsageError":
      return new UsageError(error.message);
    case "ModelError":
      return new ModelError(error.message);
    case "DeviceError":
      return new DeviceError(error.message);
    case "OverloadedError":
      return new OverloadedError(error.message);
    case "RequestError":
      return new RequestError(error.message, error.param, error.code);
    default:
      return new EngineError(error.message, error.code);
  }
}
