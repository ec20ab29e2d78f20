/** The engine's step: schedule, run, sample, deliver. No thread, no HTTP. */
import { maskLogits } from "../../wasm/bit_mask.ts";
import type { Device, LogitRow, ModelShape, PendingStep, StepResult } from "../model/device.ts";
import { startStep } from "../model/kimi_linear.ts";
import { MAX_FORCED_TOKENS } from "../limits.ts";
import { DeviceError, EngineError, KedgeError } from "../errors.ts";
import type { EngineStats, FinishReason, GenerateRequest, TokenLogprob } from "./engine.ts";
import { Faults } from "./fault.ts";
import type { GrammarSource, HeldGrammar, TokenMatcher } from "./grammars.ts";
import { Penalties } from "./penalties.ts";
import { type RequestEvent, toWire } from "./protocol.ts";
import { chooseToken, logprobOf, targetLogprob, type TokenSampler } from "./sampling.ts";
import {
  type ScheduledStep,
  Scheduler,
  type SchedulerLimits,
  type Sequence,
  type StepPart,
  UNKNOWN_TOKEN,
} from "./scheduler.ts";

/** One request's bookkeeping beside its sequence. */
interface Job {
  readonly sequence: Sequence;
  readonly penalties: Penalties | null;
  readonly matcher: TokenMatcher | null;
  /** Prompt log-probabilities gathered so far; null when none are wanted or all are delivered. */
  promptLogprobs: TokenLogprob[] | null;
  /** Moments in milliseconds of `clock`. */
  readonly submitted: number;
  started: number;
  firstToken: number;
}

/** A step whose result was not taken yet. */
interface Flight {
  readonly step: ScheduledStep;
  readonly pending: PendingStep;
  /** In milliseconds of `clock`. */
  readonly began: number;
}

export class Generation {
  readonly #scheduler: Scheduler;
  readonly #jobs = new Map<number, Job>();
  #flight: Flight | null = null;
  /** Of requests whose masks could not be computed; not delivered yet. */
  readonly #failures: RequestEvent[] = [];
  /** When the last result was taken. */
  #landed = 0;
  #steps = 0;
  #promptTokens = 0;
  #generatedTokens = 0;
  #prefillStepMs = 0;
  #decodeStepMs = 0;
  #deviceWaitMs = 0;

  constructor(
    private readonly device: Device,
    private readonly shape: ModelShape,
    private readonly sampler: TokenSampler,
    limits: SchedulerLimits,
    private readonly faults: Faults = new Faults([], 0),
    private readonly clock: () => number = () => performance.now(),
    private readonly grammars: GrammarSource | null = null,
  ) {
    this.#scheduler = new Scheduler(limits, (slot) => device.zeroSlot(slot));
  }

  get stats(): EngineStats {
    return {
      ...this.#scheduler.stats,
      steps: this.#steps,
      lastStepDispatches: this.device.dispatchCount,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      prefillStepMs: this.#prefillStepMs,
      decodeStepMs: this.#decodeStepMs,
      deviceWaitMs: this.#deviceWaitMs,
    };
  }

  /** Queues a request. Throws RequestError when it can't ever fit, or its grammar is none. */
  submit(id: number, request: GenerateRequest): void {
    const sequence = this.#scheduler.submit(id, request);
    let matcher: TokenMatcher | null = null;
    try {
      if (request.grammar !== null) matcher = this.#match(request.grammar);
    } catch (error) {
      this.#scheduler.finish(sequence);
      throw error;
    }
    this.#jobs.set(id, {
      sequence,
      matcher,
      penalties: Penalties.of(request),
      promptLogprobs: request.promptLogprobs ? [] : null,
      submitted: this.clock(),
      started: 0,
      firstToken: 0,
    });
  }

  #match(grammar: HeldGrammar): TokenMatcher {
    if (this.grammars !== null) return this.grammars.match(grammar);
    throw new EngineError("follow the grammar: wanted an engine with grammars, found one without");
  }

  cancel(id: number): void {
    const job = this.#jobs.get(id);
    if (job === undefined) return;
    this.#scheduler.finish(job.sequence);
    job.matcher?.free();
    this.#jobs.delete(id);
  }

  /** A paused request keeps its place and takes no rows. */
  setPaused(id: number, paused: boolean): void {
    const job = this.#jobs.get(id);
    if (job !== undefined) job.sequence.paused = paused;
  }

  /**
   * Runs a step and returns what became known; null when there was nothing to do. A step of which
   * nothing is needed to begin the next stays under way until then. Throws when the device failed.
   */
  async step(): Promise<RequestEvent[] | null> {
    const before = this.#flight;
    const step = this.#scheduler.next();
    if (step === null) return before === null ? null : await this.settle();
    const began = this.clock();
    this.#failOnCommand();
    this.#markStarts(step);
    const pending = this.#start(step, before?.step ?? null);
    this.#flight = { step, pending, began };
    const events = before === null ? [] : await this.#land(before);
    events.push(...this.#failures.splice(0));
    if (this.#canRunAhead(step)) this.#expectTokens(step);
    else events.push(...await this.settle());
    return events;
  }

  /** Waits for the step that is under way, if any. */
  async settle(): Promise<RequestEvent[]> {
    const flight = this.#flight;
    this.#flight = null;
    return flight === null ? [] : await this.#land(flight);
  }

  #failOnCommand(): void {
    const number = this.#steps + 1;
    if (this.faults.at("device_lost", number)) this.device.destroy();
    if (this.faults.at("out_of_memory", number)) {
      throw new DeviceError("run a step: the device is out of memory");
    }
  }

  #markStarts(step: ScheduledStep): void {
    for (const { sequence } of step.parts) {
      const job = this.#jobs.get(sequence.id)!;
      if (job.started === 0) job.started = this.clock();
    }
  }

  #start(step: ScheduledStep, before: ScheduledStep | null): PendingStep {
    const logits: LogitRow[] = [];
    for (const part of step.parts) {
      for (let row = part.rowCount - part.logitCount; row < part.rowCount; row++) {
        logits.push(this.#logitRow(part, row));
      }
    }
    const feeds = step.tokens.includes(UNKNOWN_TOKEN) ? feedsOf(step, before!) : null;
    const tokens = Uint32Array.from(step.tokens, (token) => token === UNKNOWN_TOKEN ? 0 : token);
    return startStep(this.device, this.shape, {
      tokens,
      feeds,
      sequences: step.sequences,
      logits,
    });
  }

  /** The mask of a request's next token; null when it ends with an error, or masks by itself. */
  #maskOf({ sequence }: Job, matcher: TokenMatcher): Uint32Array | null {
    const { stopIds, logprobs } = sequence.request;
    try {
      const mask = matcher.mask(stopIds);
      // Log-probabilities are the model's own: they take the row as it is.
      return logprobs === null ? mask : null;
    } catch (error) {
      this.#failures.push(this.#failRequest(sequence.id, error));
      return null;
    }
  }

  /** Ends a request with its error; throws one that is not its own. */
  #failRequest(id: number, error: unknown): RequestEvent {
    if (!(error instanceof KedgeError)) throw error;
    this.cancel(id);
    return { id, error: toWire(error) };
  }

  #logitRow({ sequence, rowStart, past }: StepPart, row: number): LogitRow {
    const { request, tokens } = sequence;
    const isLast = past + row + 1 === tokens.length;
    const job = this.#jobs.get(sequence.id)!;
    const { matcher } = job;
    return {
      row: rowStart + row,
      edits: isLast ? job.penalties?.edits() ?? null : null,
      mask: isLast && matcher?.holds ? () => this.#maskOf(job, matcher) : null,
      temperature: request.sampling.temperature,
      target: isLast ? null : tokens[past + row + 1]!,
    };
  }

  /**
   * Whether the step's tokens are all the best of their rows, so that the device can go on with
   * them before they are known here.
   */
  #canRunAhead({ parts }: ScheduledStep): boolean {
    return this.device.feedsTokens && parts.every(({ sequence, logitCount }) => {
      if (logitCount === 0 || sequence.over) return true;
      const { penalties, matcher } = this.#jobs.get(sequence.id)!;
      return sequence.request.sampling.temperature === 0 && matcher === null &&
        !(penalties?.changes ?? false);
    });
  }

  /** Holds a token's place where the step under way gives one. */
  #expectTokens({ parts }: ScheduledStep): void {
    for (const { sequence, past, rowCount, logitCount } of parts) {
      if (logitCount > 0 && past + rowCount === sequence.tokens.length && !sequence.over) {
        sequence.tokens.push(UNKNOWN_TOKEN);
      }
    }
  }

  async #land({ step, pending, began }: Flight): Promise<RequestEvent[]> {
    const waited = this.clock();
    const result = await pending.result();
    const now = this.clock();
    this.#deviceWaitMs += now - waited;
    this.#steps++;
    const promptRows = countPromptRows(step);
    this.#promptTokens += promptRows;
    this.#generatedTokens += step.tokens.length - promptRows;
    // Steps overlap: each millisecond counts once.
    const spent = now - Math.max(began, this.#landed);
    this.#landed = now;
    if (promptRows > 0) this.#prefillStepMs += spent;
    else this.#decodeStepMs += spent;
    if (this.faults.at("nan_logits", this.#steps)) result.nonFinite.fill(1, 0, 1);
    const events: RequestEvent[] = [];
    for (const part of step.parts) {
      if (!part.sequence.over) events.push(...await this.#deliver(part, result));
    }
    return events;
  }

  /** Events of one sequence from its logit rows; ends it where it is over. */
  async #deliver(part: StepPart, result: StepResult): Promise<RequestEvent[]> {
    const { sequence, past, rowCount, logitStart, logitCount } = part;
    const { id, request, tokens } = sequence;
    const job = this.#jobs.get(id)!;
    const events: RequestEvent[] = [];
    const promptLength = request.promptIds.length;
    const end = past + rowCount;
    for (let index = 0; index < logitCount; index++) {
      const position = end - logitCount + index;
      if (result.nonFinite[logitStart + index] !== 0) return [this.#failNonFinite(job, position)];
      await this.#takePromptLogprob(job, position, result, logitStart + index);
    }
    if (request.progress && past < promptLength) {
      const processed = Math.min(end, promptLength);
      events.push({ id, event: { type: "progress", processed, total: promptLength } });
    }
    const known = tokens.at(-1) === UNKNOWN_TOKEN ? tokens.length - 1 : tokens.length;
    if (end < known) return events;
    if (job.promptLogprobs !== null) {
      events.push({ id, event: { type: "prompt", logprobs: job.promptLogprobs } });
      job.promptLogprobs = null;
    }
    job.firstToken ||= this.clock();
    if (request.maxTokens === 0) return [...events, this.#end(job, "length")];
    const row = logitStart + logitCount - 1;
    const token = await this.#choose(job, result, row, known);
    const logprob = request.logprobs === null
      ? null
      : await logprobOf(this.sampler, result, row, token, request.logprobs);
    if (known < tokens.length) tokens.pop();
    events.push(...this.#append(job, token, logprob));
    // The log-probabilities of forced tokens take their rows.
    if (job.matcher === null || request.logprobs !== null) return events;
    for (const forced of this.#forcedOf(job, job.matcher)) {
      if (!sequence.over) events.push(...this.#append(job, forced, null));
    }
    return events;
  }

  /** Takes a token into its text, and ends the text where it is over. */
  #append(job: Job, token: number, logprob: TokenLogprob | null): RequestEvent[] {
    const { sequence: { id, request, tokens }, matcher } = job;
    tokens.push(token);
    job.penalties?.push(token);
    const event: RequestEvent = { id, event: { type: "token", id: token, logprob } };
    if (request.stopIds.includes(token)) return [event, this.#end(job, "stop")];
    try {
      matcher?.consume(token);
    } catch (error) {
      return [event, this.#failRequest(id, error)];
    }
    if (matcher?.isOver) return [event, this.#end(job, "stop")];
    const count = tokens.length - request.promptIds.length;
    return count === request.maxTokens ? [event, this.#end(job, "length")] : [event];
  }

  /** Tokens that need no choice: they come without logits. */
  #forcedOf({ sequence }: Job, matcher: TokenMatcher): Uint32Array {
    if (sequence.over) return new Uint32Array(0);
    return matcher.forced().subarray(0, MAX_FORCED_TOKENS);
  }

  /** The token at `position`, of those that its grammar allows. */
  async #choose(
    { sequence, matcher }: Job,
    result: StepResult,
    row: number,
    position: number,
  ): Promise<number> {
    const { sampling, stopIds, logprobs } = sequence.request;
    if (matcher === null || !matcher.holds || logprobs === null) {
      return chooseToken(this.sampler, result, row, sampling, position);
    }
    const logits = (await result.readRow(row)).slice();
    maskLogits(logits, matcher.mask(stopIds));
    return this.sampler.sample(logits, sampling, position);
  }

  /** Keeps the log-probability of the prompt token after `position`, once. */
  async #takePromptLogprob(
    job: Job,
    position: number,
    result: StepResult,
    row: number,
  ): Promise<void> {
    const { promptIds, logprobs } = job.sequence.request;
    // A prompt that gave way comes by twice.
    if (job.promptLogprobs === null || position !== job.promptLogprobs.length) return;
    const next = promptIds[position + 1];
    if (next === undefined) return;
    job.promptLogprobs.push(await targetLogprob(this.sampler, result, row, next, logprobs ?? 0));
  }

  #failNonFinite(job: Job, position: number): RequestEvent {
    const { id } = job.sequence;
    this.cancel(id);
    const error = new EngineError(
      `compute logits at position ${position}: wanted finite values, found NaN or infinity`,
      "non_finite_logits",
    );
    return { id, error: toWire(error) };
  }

  #end(job: Job, reason: FinishReason): RequestEvent {
    const { submitted, started, firstToken } = job;
    const { id } = job.sequence;
    this.cancel(id);
    const timings = {
      queuedMs: started - submitted,
      prefillMs: firstToken - started,
      decodeMs: this.clock() - firstToken,
    };
    return { id, event: { type: "done", reason, timings } };
  }
}

/** For each row of `step` the logit row of the step before that chooses its token, or -1. */
function feedsOf(step: ScheduledStep, before: ScheduledStep): Int32Array {
  const feeds = new Int32Array(step.tokens.length).fill(-1);
  const sources = new Map(before.parts.map((part) => [part.sequence, part]));
  for (const { sequence, rowStart } of step.parts) {
    if (step.tokens[rowStart] !== UNKNOWN_TOKEN) continue;
    const { logitStart, logitCount } = sources.get(sequence)!;
    feeds[rowStart] = logitStart + logitCount - 1;
  }
  return feeds;
}

function countPromptRows({ parts }: ScheduledStep): number {
  return parts.reduce((sum, { sequence, past, rowCount }) => {
    const end = Math.min(past + rowCount, sequence.request.promptIds.length);
    return sum + Math.max(0, end - past);
  }, 0);
}
