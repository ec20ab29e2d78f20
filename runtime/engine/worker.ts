/**
 * The engine's thread: a wait for the GPU blocks it, so nothing that answers HTTP lives here.
 * Talks in the messages of protocol.ts and runs steps while there is work.
 */
import { loadTextModule, Sampler } from "../../wasm/text.ts";
import { DeviceError, KedgeError } from "../errors.ts";
import {
  CONTEXT_TOKENS_DEFAULT,
  LOGIT_BYTES_MAX,
  PAGE_TOKENS,
  POOL_TOKENS_PER_SLOT,
  QUEUE_REQUESTS_MAX,
  STEP_ROWS,
} from "../limits.ts";
import type { Capacity, Device } from "../model/device.ts";
import { loadWeights } from "../weights/loader.ts";
import { type ModelFolder, openModelFolder } from "../weights/model_folder.ts";
import { openDevice } from "./devices.ts";
import { Generation } from "./generation.ts";
import { type EngineOptions, type FromWorker, type RequestEvent, toWire } from "./protocol.ts";
import type { ToWorker } from "./protocol.ts";

/** What the types of a Worker's global scope call `self`. */
const scope = self as unknown as DedicatedWorkerGlobalScope;

/** Progress messages are sent at most this often. */
const PROGRESS_INTERVAL_MS = 100;

let device: Device | null = null;
let generation: Generation | null = null;
let running = false;
/**
 * Ids cancelled or refused while a step runs are handled between steps: no step sees them change.
 */
const inbox: ToWorker[] = [];

function post(message: FromWorker): void {
  scope.postMessage(message);
}

scope.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "start") {
    start(data.options).catch((error) => post({ type: "failed", error: toWire(error) }));
    return;
  }
  inbox.push(data);
  if (!running) void run();
};

/** Releases the device and ends the Worker. */
function close(): void {
  generation = null;
  device?.destroy();
  post({ type: "closed" });
  scope.close();
}

async function start(options: EngineOptions): Promise<void> {
  const began = performance.now();
  const folder = await openModelFolder(options.modelDirectory);
  const contextTokens = Math.min(
    folder.config.contextLength,
    options.contextTokens ?? CONTEXT_TOKENS_DEFAULT,
  );
  const capacity = capacityFor(folder, options, contextTokens);
  device = await openDevice(options.device, folder.config.shape);
  post({ type: "loading", device: device.description, bytes: folder.weightBytes });
  try {
    let posted = 0;
    await loadWeights(folder, device, (done, total) => {
      if (performance.now() - posted < PROGRESS_INTERVAL_MS && done < total) return;
      posted = performance.now();
      post({ type: "progress", done, total });
    });
    await device.configure(capacity);
  } catch (error) {
    // The devices know nothing of Kedge's error classes.
    if (error instanceof KedgeError || !(error instanceof Error)) throw error;
    throw new DeviceError(error.message);
  }
  loadTextModule();
  const { shape } = folder.config;
  generation = new Generation(device, shape, new Sampler(shape.vocabularySize), {
    ...capacity,
    queue: QUEUE_REQUESTS_MAX,
  });
  const loadSeconds = (performance.now() - began) / 1_000;
  const model = modelInfo(folder, device);
  post({
    type: "ready",
    model: { ...model, contextLength: contextTokens, loadSeconds, slots: capacity.slots },
  });
}

/** Sizes of everything that is allocated once. */
function capacityFor(
  folder: ModelFolder,
  options: EngineOptions,
  contextTokens: number,
): Capacity {
  const { slots, latentFormat } = options;
  const { shape } = folder.config;
  const otherTokens = Math.min(contextTokens, POOL_TOKENS_PER_SLOT);
  const poolTokens = contextTokens + (slots - 1) * otherTokens;
  const logitRowsMax = Math.floor(LOGIT_BYTES_MAX / (4 * shape.vocabularySize));
  const rows = Math.max(STEP_ROWS, slots);
  return {
    slots,
    // Each slot may leave its last page half empty.
    pages: Math.ceil(poolTokens / PAGE_TOKENS) + slots,
    pageTokens: PAGE_TOKENS,
    rows,
    logitRows: Math.max(slots, Math.min(rows, logitRowsMax)),
    sequences: slots,
    pagesPerSequence: Math.ceil(contextTokens / PAGE_TOKENS),
    latentFormat,
  };
}

function modelInfo(folder: ModelFolder, device: Device) {
  return {
    id: folder.id,
    created: Math.floor(Date.now() / 1_000),
    vocabularySize: folder.config.shape.vocabularySize,
    parameterCount: folder.parameterCount,
    weightBytes: folder.weightBytes,
    device: device.kind,
    deviceDescription: device.description,
  };
}

/** Runs steps until nothing waits. Between steps the event loop turns, so that messages arrive. */
async function run(): Promise<void> {
  running = true;
  try {
    while (generation !== null) {
      if (inbox.some((message) => message.type === "close")) return close();
      const refused = readInbox(generation);
      const idle = generation.idle;
      const events = idle ? refused : [...refused, ...await generation.step()];
      post({ type: "step", events, stats: generation.stats });
      if (idle) break;
      await nextTurn();
    }
  } catch (error) {
    generation = null;
    post({ type: "failed", error: toWire(error) });
  } finally {
    running = false;
  }
}

/** Applies what arrived since the last step; returns the errors of requests that can't be taken. */
function readInbox(target: Generation): RequestEvent[] {
  const refused: RequestEvent[] = [];
  for (const message of inbox.splice(0)) {
    if (message.type === "cancel") target.cancel(message.id);
    if (message.type !== "submit") continue;
    try {
      target.submit(message.id, message.request);
    } catch (error) {
      refused.push({ id: message.id, error: toWire(error) });
    }
  }
  return refused;
}

const turn = new MessageChannel();
let resume: (() => void) | null = null;
turn.port1.onmessage = () => resume?.();

/** A turn of the event loop; a timer of 0 ms would cost a millisecond. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    resume = resolve;
    turn.port2.postMessage(null);
  });
}
