/**
 * A device whose "model" is a hash: a sequence's next token depends on every token before it, on
 * where they were kept, and on how they were computed. Whatever the engine does wrong with slots,
 * pages, pieces or neighbours changes the text or is refused here.
 */
import type {
  Capacity,
  Device,
  KdaState,
  PendingStep,
  StepPlan,
  StepResult,
  StepSequence,
} from "../../runtime/model/device.ts";
import type { TokenMatcher } from "../../runtime/engine/grammars.ts";
import { maskWords } from "../../wasm/bit_mask.ts";

export const SIM_VOCABULARY = 64;
/** Any of these ends a text. */
export const SIM_STOP_IDS: readonly number[] = [0, 1];
const CANDIDATES = 4;

export function mix(hash: number, value: number): number {
  let mixed = Math.imul(hash ^ value ^ (hash >>> 15), 0x2c1b3c6d);
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** A state after one more token. `piece`: computed with others, from this position on; else -1. */
export function advance(state: number, token: number, piece: number): number {
  return mix(mix(state, token + 1), piece + 2);
}

export function bestToken(state: number): number {
  return mix(state, 7) % SIM_VOCABULARY;
}

/** What a request's text must be: the model by itself, without an engine. */
export function expectedText(
  prompt: Uint32Array,
  maxTokens: number,
  pieceTokens: number,
  isHeld: boolean,
): number[] {
  let state = 0;
  prompt.forEach((token, position) => {
    const start = position - position % pieceTokens;
    const isAlone = pieceTokens > 1 && start === prompt.length - 1;
    state = advance(state, token, pieceTokens === 1 || isAlone ? -1 : start);
  });
  const text: number[] = [];
  let forced: number[] = [];
  while (text.length < maxTokens) {
    const isForced = forced.length > 0;
    const token = forced.shift() ?? bestToken(state);
    text.push(token);
    if (SIM_STOP_IDS.includes(token)) break;
    state = advance(state, token, -1);
    if (isHeld && !isForced) forced = forcedAfter(token);
  }
  return text;
}

/** What must follow a chosen token in a text that is held to a grammar. */
function forcedAfter(token: number): number[] {
  const count = token % 4 === 2 ? token % 7 : 0;
  return Array.from({ length: count }, (_, at) => (token * 5 + at * 11) % SIM_VOCABULARY);
}

/** Allows everything, and forces some. */
export class SimMatcher implements TokenMatcher {
  readonly holds = true;
  readonly isOver = false;
  #last = -1;

  mask(): Uint32Array {
    return new Uint32Array(maskWords(SIM_VOCABULARY)).fill(0xffff_ffff);
  }

  forced(): Uint32Array {
    return Uint32Array.from(forcedAfter(this.#last));
  }

  consume(id: number): void {
    this.#last = id;
  }

  free(): void {}
}

/** Cheaper than node:assert, which this runs millions of times. */
function check(holds: boolean, invariant: string): void {
  if (!holds) throw new Error(`broken: ${invariant}`);
}

/** The state after each token so far. */
type Slot = number[];

export class HashDevice implements Device {
  readonly kind = "fake";
  readonly description = "hash";
  readonly isSoftware = false;
  readonly allocatedBytes = 0;
  readonly compilation = { kernels: 0, shaderSeconds: 0, pipelineSeconds: 0 };
  readonly bufferBytesMax = Infinity;
  readonly dispatchCount = 0;
  readonly #slots: Slot[];
  /** State after each position, where the page table says. */
  readonly #pages: Int32Array;
  #plan: StepPlan | null = null;
  #best: number[] = [];
  #isLost = false;
  #underWay = 0;
  /** Rows of the last step. */
  rowCount = 0;
  /** The result of this many more steps says that the first row is not finite. */
  poisoned = 0;

  constructor(
    private readonly capacity: Capacity,
    readonly pieceTokens: number,
    readonly feedsTokens: boolean,
  ) {
    this.#slots = Array.from({ length: capacity.slots }, () => []);
    this.#pages = new Int32Array(capacity.pages * capacity.pageTokens).fill(-1);
  }

  declare(): void {}
  write(): void {}
  writeScales(): void {}
  writeGroupScales(): void {}
  timeDispatches(): Promise<null> {
    return Promise.resolve(null);
  }
  configure(): Promise<void> {
    return Promise.resolve();
  }
  embed(): void {}
  kda(): void {}
  mla(): void {}
  dense(): void {}
  moe(): void {}
  logits(): void {
    for (const { mask } of this.#plan!.logits) mask?.();
  }

  zeroSlot(slot: number): void {
    this.#slots[slot] = [];
  }

  /** Whether a slot's state is that of an empty sequence. */
  isZero(slot: number): boolean {
    return this.#slots[slot]!.length === 0;
  }

  destroy(): void {
    this.#isLost = true;
  }

  begin(plan: StepPlan): void {
    check(plan.tokens.length > 0 && plan.tokens.length <= this.capacity.rows, "rows fit");
    check(plan.logits.length <= this.capacity.logitRows, "logit rows fit");
    check(this.feedsTokens || plan.feeds === null, "feeds only where they are taken");
    this.#plan = plan;
    this.rowCount = plan.tokens.length;
  }

  finish(): PendingStep {
    const plan = this.#plan!;
    check(++this.#underWay <= 2, "two steps under way at most");
    const before = this.#best;
    const states = new Array<number>(plan.tokens.length);
    const [slots, pages] = [new Set<number>(), new Set<number>()];
    let next = 0;
    for (const sequence of plan.sequences) {
      check(sequence.rowStart === next, "sequences tile the rows");
      check(!slots.has(sequence.slot), "a slot has one sequence");
      slots.add(sequence.slot);
      for (const page of sequence.pages) {
        check(!pages.has(page), "a page has one sequence");
        pages.add(page);
      }
      this.#run(plan, sequence, before, states);
      next += sequence.rowCount;
    }
    check(next === plan.tokens.length, "sequences tile the rows");
    this.#best = plan.logits.map(({ row }) => bestToken(states[row]!));
    const result = this.#result(this.#best);
    return {
      result: () => {
        this.#underWay--;
        if (this.#isLost) return Promise.reject(new Error("the device was lost"));
        return Promise.resolve(result);
      },
    };
  }

  #run(plan: StepPlan, sequence: StepSequence, best: readonly number[], states: number[]): void {
    const { slot, rowStart, rowCount, past, pages } = sequence;
    const own = this.#slots[slot]!;
    check(own.length === past, "the slot holds what the sequence has behind it");
    check(pages.length * this.capacity.pageTokens >= past + rowCount, "pages for all tokens");
    let state = own.at(-1) ?? 0;
    // Two of the latents that attention would read: the newest and any other.
    for (const position of past === 0 ? [] : [past - 1, state % past]) {
      const latent = this.#pages[this.#place(pages, position)];
      check(latent === (own[position]! | 0), "the pages hold the sequence's latents");
    }
    for (let row = rowStart; row < rowStart + rowCount; row++) {
      const feed = plan.feeds?.[row] ?? -1;
      const token = feed >= 0 ? best[feed]! : plan.tokens[row]!;
      const position = past + row - rowStart;
      const piece = this.pieceTokens === 1 || rowCount === 1
        ? -1
        : position - (position - past) % this.pieceTokens;
      state = advance(state, token, piece);
      own.push(state);
      this.#pages[this.#place(pages, position)] = state | 0;
      states[row] = state;
    }
  }

  #place(pages: Uint32Array, position: number): number {
    const { pageTokens } = this.capacity;
    return pages[Math.floor(position / pageTokens)]! * pageTokens + position % pageTokens;
  }

  #result(best: readonly number[]): StepResult {
    const rows = best.length;
    const nonFinite = new Uint8Array(rows);
    if (this.poisoned > 0 && rows > 0) {
      this.poisoned--;
      nonFinite[0] = 1;
    }
    const ids = new Uint32Array(rows * CANDIDATES);
    const logits = new Float32Array(rows * CANDIDATES);
    for (let at = 0; at < ids.length; at++) {
      ids[at] = (best[Math.floor(at / CANDIDATES)]! + at % CANDIDATES) % SIM_VOCABULARY;
      logits[at] = -(at % CANDIDATES);
    }
    const sums = new Float32Array(rows);
    return {
      nonFinite,
      candidates: {
        count: CANDIDATES,
        ids,
        logits,
        logSumExp: sums,
        scaledLogSumExp: sums,
        targets: sums,
      },
      readRow: () => Promise.reject(new Error("no rows here")),
    };
  }

  readState(): Promise<KdaState> {
    return Promise.reject(new Error("no state here"));
  }
  readLatents(): Promise<Float32Array> {
    return Promise.reject(new Error("no latents here"));
  }
  readResidual(): Promise<Float32Array> {
    return Promise.reject(new Error("no residual here"));
  }
  readRouting(): Promise<{ experts: Uint32Array; weights: Float32Array }> {
    return Promise.reject(new Error("no routing here"));
  }
  takeExpertUse(): Promise<Uint32Array> {
    return Promise.resolve(new Uint32Array(0));
  }
}
