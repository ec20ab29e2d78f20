/** The engine's step: schedule, run, sample, deliver. No thread, no HTTP. */
import type { Device, ModelShape, StepResult } from "../model/device.ts";
import { runStep } from "../model/kimi_linear.ts";
import { EngineError } from "../errors.ts";
import type { FinishReason, GenerateRequest, TokenLogprob } from "./engine.ts";
import { type RequestEvent, toWire } from "./protocol.ts";
import { type ScheduledStep, Scheduler, type SchedulerLimits, type Sequence } from "./scheduler.ts";

/** What picks tokens: the text module's sampler. */
export interface TokenSampler {
  sample(logits: Float32Array, parameters: GenerateRequest["sampling"], position: number): number;
  logprobs(
    logits: Float32Array,
    id: number,
    topCount: number,
  ): { logprob: number; top: { id: number; logprob: number }[] };
}

/** Moments of one request, in milliseconds of `clock`. */
interface Moments {
  submitted: number;
  started: number;
  firstToken: number;
}

export class Generation {
  readonly #scheduler: Scheduler;
  readonly #moments = new Map<number, Moments>();
  /** Prompt log-probabilities gathered so far, by request. */
  readonly #promptLogprobs = new Map<number, TokenLogprob[]>();
  #steps = 0;

  constructor(
    private readonly device: Device,
    private readonly shape: ModelShape,
    private readonly sampler: TokenSampler,
    limits: SchedulerLimits,
    private readonly clock: () => number = () => performance.now(),
  ) {
    this.#scheduler = new Scheduler(limits, (slot) => device.zeroSlot(slot));
  }

  get stats() {
    return {
      running: this.#scheduler.runningCount,
      queued: this.#scheduler.queuedCount,
      steps: this.#steps,
      lastStepDispatches: this.device.dispatchCount,
    };
  }

  get idle(): boolean {
    return this.#scheduler.runningCount + this.#scheduler.queuedCount === 0;
  }

  /** Queues a request. Throws OverloadedError when the queue is full. */
  submit(id: number, request: GenerateRequest): void {
    this.#scheduler.submit(id, request);
    this.#moments.set(id, { submitted: this.clock(), started: 0, firstToken: 0 });
    if (request.promptLogprobs) this.#promptLogprobs.set(id, []);
  }

  cancel(id: number): void {
    this.#scheduler.cancel(id);
    this.#forget(id);
  }

  /** Runs one step and returns what it produced. Throws when the device failed. */
  async step(): Promise<RequestEvent[]> {
    const scheduled = this.#scheduler.next();
    if (scheduled === null) return [];
    this.#markStarts(scheduled);
    const result = await runStep(this.device, this.shape, scheduled.plan);
    this.#steps++;
    this.#scheduler.complete(scheduled);
    return scheduled.parts.flatMap((part) =>
      this.#deliver(part.sequence, result, part.logitStart, part.logitCount)
    );
  }

  #markStarts(scheduled: ScheduledStep): void {
    for (const { sequence } of scheduled.parts) {
      const moments = this.#moments.get(sequence.id)!;
      if (moments.started === 0) moments.started = this.clock();
    }
  }

  /** Events of one sequence from its logit rows; ends it where it is over. */
  #deliver(
    sequence: Sequence,
    result: StepResult,
    logitStart: number,
    logitCount: number,
  ): RequestEvent[] {
    const { id, request } = sequence;
    const width = this.shape.vocabularySize;
    const row = (index: number) => result.logits.subarray(index * width, (index + 1) * width);
    const events: RequestEvent[] = [];
    for (let index = 0; index < logitCount; index++) {
      if (result.nonFinite[logitStart + index] !== 0) return [this.#failNonFinite(sequence)];
      const position = sequence.past - logitCount + index;
      this.#takePromptLogprob(sequence, position, row(logitStart + index));
    }
    if (sequence.past < sequence.tokens.length) return events;
    const promptLogprobs = this.#promptLogprobs.get(id);
    if (promptLogprobs !== undefined) {
      events.push({ id, event: { type: "prompt", logprobs: promptLogprobs } });
      this.#promptLogprobs.delete(id);
    }
    this.#moments.get(id)!.firstToken ||= this.clock();
    if (request.maxTokens === 0) return [...events, this.#end(sequence, "length")];
    const logits = row(logitStart + logitCount - 1);
    const token = this.sampler.sample(logits, request.sampling, sequence.tokens.length);
    const logprob = request.logprobs === null
      ? null
      : { id: token, ...this.sampler.logprobs(logits, token, request.logprobs) };
    sequence.tokens.push(token);
    events.push({ id, event: { type: "token", id: token, logprob } });
    if (request.stopIds.includes(token)) events.push(this.#end(sequence, "stop"));
    else if (sequence.tokens.length - request.promptIds.length === request.maxTokens) {
      events.push(this.#end(sequence, "length"));
    }
    return events;
  }

  /** Keeps the log-probability of the prompt token after `position`, once. */
  #takePromptLogprob(sequence: Sequence, position: number, logits: Float32Array): void {
    const known = this.#promptLogprobs.get(sequence.id);
    const { promptIds, logprobs } = sequence.request;
    // A preempted prompt comes by twice.
    if (known === undefined || position !== known.length) return;
    const next = promptIds[position + 1];
    if (next === undefined) return;
    known.push({ id: next, ...this.sampler.logprobs(logits, next, logprobs ?? 0) });
  }

  #failNonFinite(sequence: Sequence): RequestEvent {
    this.#scheduler.finish(sequence);
    this.#forget(sequence.id);
    const error = new EngineError(
      `compute logits at position ${
        sequence.past - 1
      }: wanted finite values, found NaN or infinity`,
      "non_finite_logits",
    );
    return { id: sequence.id, error: toWire(error) };
  }

  #end(sequence: Sequence, reason: FinishReason): RequestEvent {
    const { submitted, started, firstToken } = this.#moments.get(sequence.id)!;
    this.#scheduler.finish(sequence);
    this.#forget(sequence.id);
    const timings = {
      queuedMs: started - submitted,
      prefillMs: firstToken - started,
      decodeMs: this.clock() - firstToken,
    };
    return { id: sequence.id, event: { type: "done", reason, timings } };
  }

  #forget(id: number): void {
    this.#moments.delete(id);
    this.#promptLogprobs.delete(id);
  }
}
