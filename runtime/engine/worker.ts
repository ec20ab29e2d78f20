/**
 * The engine's thread: a wait for the GPU blocks it, so nothing that answers HTTP lives here.
 * Talks in the messages of protocol.ts and runs steps while there is work.
 */
import { loadTextModule, Sampler } from "../../wasm/text.ts";
import { DeviceError, KedgeError } from "../errors.ts";
import { CONTEXT_TOKENS_DEFAULT } from "../limits.ts";
import type { Capacity, Device } from "../model/device.ts";
import { loadWeights } from "../weights/loader.ts";
import { type ModelFolder, openModelFolder } from "../weights/model_folder.ts";
import { planCapacity, stepRows } from "./capacity.ts";
import { openDevice } from "./devices.ts";
import { Faults } from "./fault.ts";
import { Generation } from "./generation.ts";
import { Grammars } from "./grammars.ts";
import { type EngineOptions, type FromWorker, packEvents, type RequestEvent } from "./protocol.ts";
import { toWire, type ToWorker } from "./protocol.ts";
import { chooseWeights, type ChosenWeights } from "./weight_choice.ts";

/** What the types of a Worker's global scope call `self`. */
const scope = self as unknown as DedicatedWorkerGlobalScope;

/** Progress messages are sent at most this often. */
const PROGRESS_INTERVAL_MS = 100;

/** Everything that a started engine has. */
interface Started {
  readonly device: Device;
  readonly generation: Generation;
  readonly faults: Faults;
  readonly expertCount: number;
  /** Tokens routed to each expert; the device's own counts are taken and begin again. */
  readonly expertUse: Float64Array;
}

let started: Started | null = null;
let running = false;
/** After a failed step all that is left to do is to close. */
let failed = false;
/** Messages that arrive while a step runs wait until it has run: no step sees them change. */
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
  started?.device.destroy();
  started = null;
  post({ type: "closed" });
  scope.close();
}

async function start(options: EngineOptions): Promise<void> {
  const began = performance.now();
  const folder = await openModelFolder(options.modelDirectory);
  const { shape } = folder.config;
  const contextTokens = Math.min(
    folder.config.contextLength,
    options.contextTokens ?? CONTEXT_TOKENS_DEFAULT,
  );
  const device = await openDevice(options.device, shape, options.tuning);
  const { pieceTokens } = device;
  const room = { ...options, contextTokens, deviceKind: device.kind };
  const chosen = chooseWeights(folder.tensors.weights, options.weights, shape, room);
  const weightBytes = chosen.bytes;
  const capacity = planCapacity(shape, {
    ...options,
    contextTokens,
    weightBytes,
    bufferBytesMax: device.bufferBytesMax,
    pieceTokens,
    stepRows: stepRows(device),
  });
  post({
    type: "loading",
    device: device.description,
    weights: chosen.name,
    bytes: weightBytes,
  });
  await load(folder, chosen, device, capacity, options.memoryBytes);
  loadTextModule();
  const faults = new Faults(options.faults, options.life);
  const sampler = new Sampler(shape.vocabularySize);
  const limits = { ...capacity, pieceTokens };
  const endId = folder.generation.eosIds.at(-1)!;
  const grammars = new Grammars(folder.tokenizer, shape.vocabularySize, endId);
  const generation = new Generation(device, shape, sampler, limits, faults, undefined, grammars);
  const { expertCount } = shape.moe;
  const moeLayers = shape.layers.filter(({ feedForward }) => feedForward === "moe").length;
  const expertUse = new Float64Array(moeLayers * expertCount);
  started = { device, generation, faults, expertCount, expertUse };
  const loadSeconds = (performance.now() - began) / 1_000;
  post({
    type: "ready",
    model: {
      ...modelInfo(folder, device),
      contextLength: contextTokens,
      loadSeconds,
      slots: capacity.slots,
    },
    stats: generation.stats,
  });
}

/** Brings the weights to the device and makes the pools. */
async function load(
  folder: ModelFolder,
  { weights }: ChosenWeights,
  device: Device,
  capacity: Capacity,
  memoryBytes: number | undefined,
): Promise<void> {
  try {
    let posted = 0;
    await loadWeights(folder, device, (done, total) => {
      if (performance.now() - posted < PROGRESS_INTERVAL_MS && done < total) return;
      posted = performance.now();
      post({ type: "progress", done, total });
    }, weights);
    await device.configure(capacity);
  } catch (error) {
    // The devices know nothing of Kedge's error classes.
    if (error instanceof KedgeError || !(error instanceof Error)) throw error;
    throw new DeviceError(error.message);
  }
  if (memoryBytes !== undefined && device.allocatedBytes > memoryBytes) {
    throw new DeviceError(
      `plan memory: wanted at most --memory ${memoryBytes} bytes, found ${device.allocatedBytes} ` +
        "with the buffers of a step; ask for fewer --slots",
    );
  }
}

function modelInfo(folder: ModelFolder, device: Device) {
  return {
    id: folder.id,
    created: Math.floor(Date.now() / 1_000),
    vocabularySize: folder.config.shape.vocabularySize,
    parameterCount: folder.parameterCount,
    weightBytes: folder.weightBytes,
    deviceBytes: device.allocatedBytes,
    device: device.kind,
    deviceDescription: device.description,
    isSoftware: device.isSoftware,
  };
}

/**
 * Runs steps until nothing can run. Between steps the event loop turns, so that messages arrive.
 */
async function run(): Promise<void> {
  running = true;
  try {
    while (started !== null) {
      if (inbox.some((message) => message.type === "close")) return close();
      if (failed) return;
      const { generation } = started;
      const events = await readInbox(started);
      failOnCommand(started);
      const made = await generation.step();
      const packed = packEvents([...events, ...made ?? []]);
      post({ type: "step", events: packed, stats: generation.stats });
      if (made === null) break;
      await nextTurn();
    }
  } catch (error) {
    failed = true;
    post({ type: "failed", error: toWire(error) });
  } finally {
    running = false;
  }
}

/** Applies what arrived since the last step; returns the errors of requests that can't be taken. */
async function readInbox(engine: Started): Promise<RequestEvent[]> {
  const events: RequestEvent[] = [];
  for (const message of inbox.splice(0)) {
    if (message.type === "cancel") engine.generation.cancel(message.id);
    if (message.type === "pause") engine.generation.setPaused(message.id, message.paused);
    if (message.type === "expertUse") events.push(...await postExpertUse(engine));
    if (message.type !== "submit") continue;
    try {
      engine.generation.submit(message.id, message.request);
    } catch (error) {
      // Not the request's fault: a trap of the grammar module, after which it is of no use.
      if (!(error instanceof KedgeError)) throw error;
      events.push({ id: message.id, error: toWire(error) });
    }
  }
  return events;
}

/** Nothing else may be read while a step is under way: returns what that step produced. */
async function postExpertUse(engine: Started): Promise<RequestEvent[]> {
  const { generation, device, expertCount, expertUse } = engine;
  const events = await generation.settle();
  const counts = await device.takeExpertUse();
  counts.forEach((count, index) => expertUse[index]! += count);
  post({ type: "expertUse", expertCount, tokens: expertUse });
  return events;
}

function failOnCommand({ faults, generation }: Started): void {
  const step = generation.stats.steps + 1;
  if (faults.at("worker_stuck", step)) { for (;;); }
  if (faults.at("worker_exit", step)) scope.close();
  if (faults.at("worker_throw", step)) {
    setTimeout(() => {
      throw new Error("thrown on command");
    });
  }
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
