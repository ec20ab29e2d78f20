/**
 * Speed of a device by itself: steps without scheduler, sampler and HTTP, so that any context
 * length can be had without prefilling it. Latents of the past are whatever the pages hold (zeros
 * on a fresh device), which costs the same time as any others.
 */
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import { openDevice } from "../engine/devices.ts";
import { pageBytes, pagesMax, slotBytes, stepRows } from "../engine/capacity.ts";
import { BENCH_CPU_POOL_BYTES_MAX, PAGE_TOKENS } from "../limits.ts";
import type {
  Compilation,
  Device,
  LogitRow,
  ModelShape,
  StepPlan,
  TensorSpec,
} from "../model/device.ts";
import { startStep } from "../model/kimi_linear.ts";
import { type KernelTime, kernelTimes, type Peak } from "./bench_kernels.ts";
import { kernelWork } from "./bench_work.ts";
import { randomIntegers } from "./statistics.ts";

/** What is to be measured. */
export interface DeviceBenchPlan {
  /** Tokens before the measured ones. */
  readonly contexts: readonly number[];
  /** Sequences decoding at once. */
  readonly batches: readonly number[];
  /** Tokens of prefilled prompts. */
  readonly prefills: readonly number[];
  /** Least time of each measurement in seconds. */
  readonly seconds: number;
  /** Most bytes of latents and states; what needs more is left out. */
  readonly poolBytes: number;
  /** Shapes of the webgpu device's kernels; undefined: as it finds them itself. */
  readonly tuning?: TuningChoice | undefined;
}

export interface DecodeSpeed {
  readonly context: number;
  readonly batch: number;
  /** Summed over the sequences; null: it does not fit the pools. */
  readonly tokensPerSecond: number | null;
  /** Of one step, when the next is recorded while it runs. */
  readonly stepMs: number | null;
  readonly dispatchesPerStep: number | null;
  /** States and latents that these sequences take. */
  readonly cacheBytes: number;
  /** Of one step whose dispatches do not overlap; empty where the device can't tell. */
  readonly kernels: readonly KernelTime[];
}

export interface PrefillSpeed {
  readonly tokens: number;
  /** Of the last step, as for decode. */
  readonly kernels: readonly KernelTime[];
  /** null: it does not fit the pools. */
  readonly tokensPerSecond: number | null;
}

export interface DeviceBenchReport {
  readonly device: string;
  readonly adapter: string;
  /** What the adapter reaches at most; null on the cpu device and without timestamps. */
  readonly peak: Peak | null;
  readonly loadSeconds: number;
  /** Bytes that reached the device a second. */
  readonly loadBytesPerSecond: number;
  /** Shaders compiled, pools made. */
  readonly configureSeconds: number;
  /** The shaders' part of that; the rest is the pools'. */
  readonly compilation: Compilation;
  readonly weightBytes: number;
  readonly deviceBytes: number;
  readonly decode: readonly DecodeSpeed[];
  readonly prefill: readonly PrefillSpeed[];
}

/** A model that can be brought to a device. */
export interface BenchModel {
  readonly shape: ModelShape;
  /** Its weights, as the device holds them. */
  readonly specs: readonly TensorSpec[];
  /** Resolves with the bytes written. */
  load(device: Device): Promise<number>;
}

/** Of steps before the first measurement, no longer than a measurement. */
const WARM_SECONDS = 1;
const WARM_STEPS = 3;
const LEAST_STEPS = 8;
const LATENT_FORMAT = "f16";
/** Of an element of that. */
const LATENT_BYTES = 2;

/** Opens a device, loads the model and measures. Throws what the device throws. */
export async function benchDevice(
  choice: "auto" | "webgpu" | "cpu",
  model: BenchModel,
  plan: DeviceBenchPlan,
): Promise<DeviceBenchReport> {
  const { shape } = model;
  const device = await openDevice(choice, shape, plan.tuning);
  try {
    const peak = device.kind === "webgpu" ? await measurePeak() : null;
    const began = performance.now();
    const weightBytes = await model.load(device);
    const loadSeconds = (performance.now() - began) / 1_000;
    const runner = new StepRunner(device, model, plan, peak);
    const configured = performance.now();
    await runner.configure();
    const configureSeconds = (performance.now() - configured) / 1_000;
    const decode: DecodeSpeed[] = [];
    for (const context of plan.contexts) {
      for (const batch of plan.batches) decode.push(await runner.decode(context, batch));
    }
    const prefill: PrefillSpeed[] = [];
    for (const tokens of plan.prefills) prefill.push(await runner.prefill(tokens));
    return {
      device: device.kind,
      adapter: device.description,
      peak,
      loadSeconds,
      loadBytesPerSecond: weightBytes / loadSeconds,
      configureSeconds,
      compilation: device.compilation,
      weightBytes,
      deviceBytes: device.allocatedBytes,
      decode,
      prefill,
    };
  } finally {
    device.destroy();
  }
}

async function measurePeak(): Promise<Peak | null> {
  const { measureAdapterPeak } = await import("../../kernels/peak.ts");
  return await measureAdapterPeak();
}

/** Slots and pages that `tokens` positions of `sequences` sequences take. */
function poolsOf(tokens: number, sequences: number) {
  return { sequences, pages: Math.ceil(tokens / PAGE_TOKENS) };
}

type Pools = ReturnType<typeof poolsOf>;

class StepRunner {
  readonly #rows: number;
  #tokens: Uint32Array;
  #isWarm = false;
  private readonly shape: ModelShape;

  constructor(
    private readonly device: Device,
    private readonly model: BenchModel,
    private readonly plan: DeviceBenchPlan,
    private readonly peak: Peak | null,
  ) {
    const { shape } = model;
    this.shape = shape;
    this.#rows = Math.max(stepRows(device), ...plan.batches);
    this.#tokens = Uint32Array.from(randomIntegers(1, shape.vocabularySize, this.#rows));
  }

  async configure(): Promise<void> {
    const { contexts, batches, prefills } = this.plan;
    const pools = [
      ...contexts.flatMap((context) => batches.map((batch) => poolsOf(context + 1, batch))),
      ...prefills.map((tokens) => poolsOf(tokens, 1)),
    ].filter((pool) => this.#fits(pool));
    const most = (size: (pool: Pools) => number) => Math.max(1, ...pools.map(size));
    const sequences = most((pool) => pool.sequences);
    await this.device.configure({
      slots: sequences,
      pages: most((pool) => pool.sequences * pool.pages),
      pageTokens: PAGE_TOKENS,
      rows: this.#rows,
      logitRows: sequences,
      sequences,
      pagesPerSequence: most((pool) => pool.pages),
      logitEdits: 1,
      latentFormat: LATENT_FORMAT,
    });
  }

  /** Steps of one token a sequence, all at the same position, the next recorded while one runs. */
  async decode(context: number, batch: number): Promise<DecodeSpeed> {
    const pools = poolsOf(context + 1, batch);
    const cacheBytes = this.#bytes(pools);
    if (!this.#fits(pools)) {
      const none = { tokensPerSecond: null, stepMs: null, dispatchesPerStep: null, kernels: [] };
      return { context, batch, ...none, cacheBytes };
    }
    const sequences = Array.from({ length: batch }, (_, index) => ({
      slot: index,
      rowStart: index,
      rowCount: 1,
      past: context,
      pages: pagesFrom(index * pools.pages, pools.pages),
    }));
    const first: StepPlan = {
      tokens: this.#tokens.slice(0, batch),
      feeds: null,
      sequences,
      logits: sequences.map(({ rowStart }) => wantedRow(rowStart)),
    };
    const fed = { ...first, feeds: Int32Array.from({ length: batch }, (_, index) => index) };
    const next = this.device.feedsTokens ? fed : first;
    sequences.forEach(({ slot }) => this.device.zeroSlot(slot));
    await this.#warmUp(first, next);
    const kernels = await this.#timeKernels(next);
    const began = performance.now();
    const late = () => performance.now() - began >= 1_000 * this.plan.seconds;
    const steps = await this.#run([first], () => next, () => !late(), LEAST_STEPS);
    const stepMs = (performance.now() - began) / steps;
    const dispatchesPerStep = this.device.dispatchCount;
    const tokensPerSecond = batch / stepMs * 1_000;
    return { context, batch, tokensPerSecond, stepMs, dispatchesPerStep, cacheBytes, kernels };
  }

  /** An idle card takes a while until it runs at its full rate; later steps keep it there. */
  async #warmUp(first: StepPlan, next: StepPlan): Promise<void> {
    const seconds = this.#isWarm ? 0 : Math.min(WARM_SECONDS, this.plan.seconds);
    this.#isWarm = true;
    const began = performance.now();
    const isCold = () => performance.now() - began < 1_000 * seconds;
    await this.#run([first], () => next, isCold, WARM_STEPS);
  }

  /** A step's kernels one by one, with the work of the experts that it chooses. */
  async #timeKernels(plan: StepPlan): Promise<KernelTime[]> {
    const { device, shape, model: { specs } } = this;
    await device.takeExpertUse();
    const times = await device.timeDispatches(async () => {
      await startStep(device, shape, plan).result();
    });
    if (times === null) return [];
    const { expertCount } = shape.moe;
    const use = await device.takeExpertUse();
    const chosenExperts = Array.from(
      { length: use.length / expertCount },
      (_, layer) => {
        return use.subarray(layer * expertCount, (layer + 1) * expertCount)
          .filter((rows) => rows > 0).length;
      },
    );
    const work = kernelWork({
      shape,
      specs,
      sequences: plan.sequences,
      logitRows: plan.logits.length,
      chosenExperts,
      latentBytes: LATENT_BYTES,
      kernels: new Set(times.map(({ kernel }) => kernel)),
    });
    return kernelTimes(times, work, this.peak);
  }

  /** Whole prompts in steps of as many rows as the engine's, repeated. */
  async prefill(tokens: number): Promise<PrefillSpeed> {
    const pools = poolsOf(tokens, 1);
    if (!this.#fits(pools)) return { tokens, tokensPerSecond: null, kernels: [] };
    const plans: StepPlan[] = [];
    for (let past = 0; past < tokens; past += this.#rows) {
      const rowCount = Math.min(this.#rows, tokens - past);
      const pages = pagesFrom(0, Math.ceil((past + rowCount) / PAGE_TOKENS));
      plans.push({
        tokens: this.#tokens.slice(0, rowCount),
        feeds: null,
        sequences: [{ slot: 0, rowStart: 0, rowCount, past, pages }],
        logits: past + rowCount === tokens ? [wantedRow(rowCount - 1)] : [],
      });
    }
    const once = async () => {
      this.device.zeroSlot(0);
      await this.#run(plans, () => null, () => false, plans.length);
    };
    await once();
    const kernels = await this.#timeKernels(plans.at(-1)!);
    const began = performance.now();
    let runs = 0;
    while (runs === 0 || performance.now() - began < 1_000 * this.plan.seconds) {
      await once();
      runs++;
    }
    const tokensPerSecond = runs * tokens / (performance.now() - began) * 1_000;
    return { tokens, tokensPerSecond, kernels };
  }

  /**
   * Runs `plans`, then those that `further` gives, at least `least` in all and while `more`; each
   * is started before the result of the one before it is taken. Returns how many ran.
   */
  async #run(
    plans: readonly StepPlan[],
    further: () => StepPlan | null,
    more: () => boolean,
    least: number,
  ): Promise<number> {
    let before = null;
    let steps = 0;
    for (; steps < least || more(); steps++) {
      const plan = plans[steps] ?? further();
      if (plan === null) break;
      const pending = startStep(this.device, this.shape, plan);
      await before?.result();
      before = pending;
    }
    await before?.result();
    return steps;
  }

  #fits(pools: Pools): boolean {
    const most = this.device.kind === "cpu" ? BENCH_CPU_POOL_BYTES_MAX : Infinity;
    const { bufferBytesMax } = this.device;
    return this.#bytes(pools) <= Math.min(this.plan.poolBytes, most) &&
      pools.sequences * pools.pages <= pagesMax(this.shape, LATENT_FORMAT, bufferBytesMax);
  }

  #bytes({ sequences, pages }: Pools): number {
    const page = pageBytes(this.shape, LATENT_FORMAT);
    return sequences * (slotBytes(this.shape) + pages * page);
  }
}

function pagesFrom(first: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

function wantedRow(row: number): LogitRow {
  return { row, edits: null, mask: null, temperature: 0, target: null };
}
