/**
 * The engine's step under random clients: requests arrive, stall, vanish; the device dies; memory
 * runs out. Everything is drawn from one seed, and every event is followed by a look at what must
 * always hold.
 */
import assert from "node:assert/strict";
import type { GenerateRequest } from "../../runtime/engine/engine.ts";
import { Generation } from "../../runtime/engine/generation.ts";
import type { RequestEvent } from "../../runtime/engine/protocol.ts";
import type { Capacity, ModelShape } from "../../runtime/model/device.ts";
import { expectedText, HashDevice, mix, SimMatcher } from "./hash_device.ts";
import { SIM_STOP_IDS, SIM_VOCABULARY } from "./hash_device.ts";

/** The hash device computes nothing of a model's. */
const SHAPE = { layers: [], vocabularySize: SIM_VOCABULARY } as unknown as ModelShape;
/** Once nothing more arrives, all must end in this many steps a token: some give way and repeat. */
const DRAIN_STEPS_PER_TOKEN = 10;
const TRACE_EVENTS = 30;

/** A client and what it has got. */
interface Client {
  readonly id: number;
  readonly request: GenerateRequest;
  readonly expected: readonly number[];
  readonly tokens: number[];
  /** Prompt tokens known to be computed. */
  processed: number;
  isPaused: boolean;
}

export interface SimulationResult {
  /** Of everything that was delivered, in order. */
  readonly digest: number;
  readonly finished: number;
  readonly cancelled: number;
  readonly failed: number;
  readonly preemptions: number;
}

/** Runs `eventCount` events. Throws an AssertionError that names seed and last events. */
export async function simulate(seed: number, eventCount: number): Promise<SimulationResult> {
  const simulation = new Simulation(seed);
  try {
    return await simulation.run(eventCount);
  } catch (error) {
    const reason = error instanceof Error ? error.stack ?? error.message : String(error);
    throw new Error(`seed ${seed}:\n${simulation.trace.join("\n")}\n${reason}`);
  }
}

/** Runs `count` seeds from `first` and prints what happened; asserts that enough did. */
export async function simulateMany(
  first: number,
  count: number,
  eventCount: number,
): Promise<void> {
  const sum = { finished: 0, cancelled: 0, failed: 0, preemptions: 0 };
  const began = performance.now();
  for (let seed = first; seed < first + count; seed++) {
    const { finished, cancelled, failed, preemptions } = await simulate(seed, eventCount);
    sum.finished += finished;
    sum.cancelled += cancelled;
    sum.failed += failed;
    sum.preemptions += preemptions;
  }
  const milliseconds = (performance.now() - began) / count;
  console.log(
    `seeds ${first} to ${first + count - 1}: ${JSON.stringify(sum)}, ` +
      `${milliseconds.toFixed(1)} ms a seed`,
  );
  for (const events of Object.values(sum)) assert.ok(events > count / 10);
}

class Simulation {
  /** The last events. */
  readonly trace: string[] = [];
  readonly #clients = new Map<number, Client>();
  readonly #capacity: Capacity;
  readonly #pieceTokens: number;
  readonly #feedsTokens: boolean;
  /** How likely each kind of event is in this run. */
  readonly #weights: readonly (readonly [weight: number, act: () => Promise<void> | void])[];
  readonly #longPrompts: boolean;
  #random: number;
  #device: HashDevice;
  #generation: Generation;
  #lastId = 0;
  #clock = 0;
  #digest = 0;
  #counts = { finished: 0, cancelled: 0, failed: 0, preemptions: 0 };

  constructor(seed: number) {
    this.#random = mix(seed, 1);
    this.#pieceTokens = this.#pick([1, 4]);
    this.#feedsTokens = this.#below(2) === 0;
    this.#longPrompts = this.#below(2) === 0;
    this.#capacity = this.#drawCapacity();
    const act = (most: number) => this.#below(4) === 0 ? 0 : this.#below(most);
    this.#weights = [
      [1 + this.#below(30), () => this.#arrive()],
      [20 + this.#below(80), () => this.#step()],
      [act(10), () => this.#cancel()],
      [act(10), () => this.#pause()],
      [act(3), () => this.#settle()],
      [act(2), () => this.#poison()],
      [this.#below(8) === 0 ? 1 : 0, () => this.#loseDevice()],
    ];
    this.#device = this.#newDevice();
    this.#generation = this.#newGeneration();
  }

  async run(eventCount: number): Promise<SimulationResult> {
    const sum = this.#weights.reduce((total, [weight]) => total + weight, 0);
    for (let event = 0; event < eventCount; event++) {
      let left = this.#below(sum);
      const [, act] = this.#weights.find(([weight]) => (left -= weight) < 0)!;
      await act();
      this.#checkPools();
    }
    await this.#drain();
    return { digest: this.#digest, ...this.#counts };
  }

  #drawCapacity(): Capacity {
    const slots = 1 + this.#below(5);
    const pageTokens = this.#pick([1, 3, 8]);
    const smallest = slots + this.#pieceTokens;
    return {
      slots,
      // Room for the longest request alone, and sometimes for little more.
      pages: Math.ceil(this.#contextTokens / pageTokens) + this.#below(30),
      pageTokens,
      rows: smallest + this.#below(20),
      logitRows: smallest + this.#below(10),
      sequences: slots,
      pagesPerSequence: Math.ceil(this.#contextTokens / pageTokens),
      logitEdits: 0,
      latentFormat: "f16",
    };
  }

  get #contextTokens(): number {
    return this.#longPrompts ? 120 : 40;
  }

  #newDevice(): HashDevice {
    return new HashDevice(this.#capacity, this.#pieceTokens, this.#feedsTokens);
  }

  #newGeneration(): Generation {
    // Rows are never whole here, and the best token is the one drawn at every temperature.
    const sampler = {
      sample: () => assert.fail("no whole rows"),
      sampleCandidates: (ids: Uint32Array) => ids[0]!,
      logprobs: () => assert.fail("no whole rows"),
    };
    const limits = { ...this.#capacity, pieceTokens: this.#pieceTokens };
    const grammars = { match: () => new SimMatcher() };
    const clock = () => ++this.#clock;
    return new Generation(this.#device, SHAPE, sampler, limits, undefined, clock, grammars);
  }

  #arrive(): void {
    const id = ++this.#lastId;
    const maxTokens = this.#below(5) === 0 ? 0 : 1 + this.#below(this.#contextTokens / 2);
    const promptLength = 1 + this.#below(this.#contextTokens - maxTokens);
    const logprobs = this.#below(4) === 0 ? 2 : null;
    const isHeld = logprobs === null && this.#below(3) === 0;
    const request: GenerateRequest = {
      promptIds: Uint32Array.from(
        { length: promptLength },
        () => this.#below(SIM_VOCABULARY),
      ),
      maxTokens,
      sampling: {
        // Only rows of temperature 0 may be fed on.
        temperature: this.#pick([0, 0, 0, 1]),
        topK: 0,
        topP: 1,
        minP: 0,
        typicalP: 1,
        frequencyPenalty: 0,
        presencePenalty: 0,
        repetitionPenalty: 1,
        logitBias: [],
        seed: 0,
      },
      minTokens: 0,
      // Log-probabilities beside a grammar would take whole rows.
      grammar: isHeld ? { kind: "regex", source: "" } : null,
      stopIds: SIM_STOP_IDS,
      logprobs,
      promptLogprobs: logprobs !== null && this.#below(2) === 0,
      progress: this.#below(4) === 0,
      owner: this.#pick(["", "a", "b"]),
    };
    const expected = expectedText(request.promptIds, maxTokens, this.#pieceTokens, isHeld);
    this.#clients.set(id, {
      id,
      request,
      expected,
      tokens: [],
      processed: 0,
      isPaused: false,
    });
    this.#note(`arrive ${id}: prompt ${promptLength}, at most ${maxTokens}`);
    this.#generation.submit(id, request);
  }

  async #step(): Promise<void> {
    this.#note("step");
    try {
      const events = await this.#generation.step();
      this.#deliver(events ?? []);
    } catch (error) {
      if (!(error instanceof Error) || error.message !== "the device was lost") throw error;
      this.#restart();
    }
  }

  async #settle(): Promise<void> {
    this.#note("settle");
    try {
      this.#deliver(await this.#generation.settle());
    } catch (error) {
      if (!(error instanceof Error) || error.message !== "the device was lost") throw error;
      this.#restart();
    }
  }

  /** What the supervisor does: everyone gets an error, then all begins anew. */
  #restart(): void {
    this.#note("restart");
    this.#counts.preemptions += this.#generation.stats.preemptions;
    this.#counts.failed += this.#clients.size;
    this.#clients.clear();
    this.#device = this.#newDevice();
    this.#generation = this.#newGeneration();
  }

  #cancel(): void {
    const client = this.#anyClient();
    if (client === undefined) return;
    this.#note(`cancel ${client.id}`);
    this.#generation.cancel(client.id);
    this.#clients.delete(client.id);
    this.#counts.cancelled++;
  }

  #pause(): void {
    const client = this.#anyClient();
    if (client === undefined) return;
    client.isPaused = !client.isPaused;
    this.#note(`${client.isPaused ? "pause" : "resume"} ${client.id}`);
    this.#generation.setPaused(client.id, client.isPaused);
  }

  #poison(): void {
    this.#note("poison");
    this.#device.poisoned = 1;
  }

  #loseDevice(): void {
    this.#note("lose device");
    this.#device.destroy();
  }

  #deliver(events: readonly RequestEvent[]): void {
    for (const item of events) {
      const client = this.#clients.get(item.id);
      if (client === undefined) assert.fail(`request ${item.id} is over and gets more`);
      this.#digest = mix(this.#digest, item.id);
      if ("error" in item) {
        assert.equal(item.error.code, "non_finite_logits");
        this.#clients.delete(item.id);
        this.#counts.failed++;
        continue;
      }
      this.#take(client, item.event);
    }
  }

  #take(client: Client, event: Extract<RequestEvent, { event: unknown }>["event"]): void {
    const { request, expected, tokens } = client;
    if (event.type === "token") {
      if (event.id !== expected[tokens.length]) {
        assert.fail(`request ${client.id}: wanted ${expected[tokens.length]}, got ${event.id}`);
      }
      assert.ok((event.logprob !== null) === (request.logprobs !== null));
      tokens.push(event.id);
      this.#digest = mix(this.#digest, event.id);
    } else if (event.type === "prompt") {
      assert.ok(request.promptLogprobs && tokens.length === 0);
      assert.deepEqual(
        event.logprobs.map(({ id }) => id),
        Array.from(request.promptIds.subarray(1)),
      );
    } else if (event.type === "progress") {
      assert.ok(request.progress && event.total === request.promptIds.length);
      client.processed = event.processed;
    } else {
      assert.deepEqual(tokens, expected, `request ${client.id}, whole text`);
      const isStop = tokens.length > 0 && SIM_STOP_IDS.includes(tokens.at(-1)!);
      assert.equal(event.reason, isStop ? "stop" : "length");
      if (request.progress) assert.equal(client.processed, request.promptIds.length);
      this.#clients.delete(client.id);
      this.#counts.finished++;
    }
  }

  #checkPools(): void {
    const { running, queued, freeSlots, freePages, pages } = this.#generation.stats;
    const holds = running + queued === this.#clients.size &&
      running + freeSlots === this.#capacity.slots &&
      (running > 0 ? freePages >= 0 && freePages <= pages : freePages === pages);
    if (!holds) {
      assert.fail(`${running} run, ${queued} wait, ${freeSlots} slots, ${freePages} pages`);
    }
    if (running > 0) return;
    for (let slot = 0; slot < this.#capacity.slots; slot++) {
      if (!this.#device.isZero(slot)) assert.fail(`slot ${slot} is not zeroed`);
    }
  }

  /** Everyone who is left ends, in bounded time, and nothing is left behind. */
  async #drain(): Promise<void> {
    for (const client of this.#clients.values()) {
      client.isPaused = false;
      this.#generation.setPaused(client.id, false);
    }
    let left = DRAIN_STEPS_PER_TOKEN;
    for (const { request: { promptIds, maxTokens } } of this.#clients.values()) {
      left += DRAIN_STEPS_PER_TOKEN * (promptIds.length + maxTokens);
    }
    while (this.#clients.size > 0) {
      assert.ok(left-- > 0, `${this.#clients.size} requests never end`);
      const before = this.#device;
      await this.#step();
      this.#checkPools();
      if (before === this.#device) assert.ok(before.rowCount > 0);
    }
    await this.#settle();
    assert.equal(await this.#generation.step(), null);
    this.#checkPools();
    this.#counts.preemptions += this.#generation.stats.preemptions;
  }

  #anyClient(): Client | undefined {
    if (this.#clients.size === 0) return undefined;
    return [...this.#clients.values()][this.#below(this.#clients.size)];
  }

  #below(limit: number): number {
    this.#random = mix(this.#random, 0x9e3779b9);
    return this.#random % Math.max(1, Math.floor(limit));
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#below(values.length)]!;
  }

  #note(event: string): void {
    this.trace.push(event);
    if (this.trace.length > TRACE_EVENTS) this.trace.shift();
  }
}
