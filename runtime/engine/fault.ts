/**
 * Faults on command, so that tests see what becomes of each. Always compiled in; a server gets the
 * empty plan, and nothing outside the tests makes another.
 */

export type FaultPlace =
  /** The device is destroyed before the step: what a lost GPU looks like. */
  | "device_lost"
  /** The step throws as an exhausted device does. */
  | "out_of_memory"
  /** The first logit row of the step is reported as not finite. */
  | "nan_logits"
  /** The Worker's thread never comes back. */
  | "worker_stuck"
  /** The Worker's thread ends without a word. */
  | "worker_exit"
  /** An error nobody catches. */
  | "worker_throw";

export interface Fault {
  readonly place: FaultPlace;
  /** Number of the step, from 1, that it comes before. */
  readonly step: number;
  /** Which Worker it is for: 0 is the first, 1 the one after the first restart. */
  readonly life: number;
}

export type FaultPlan = readonly Fault[];

/** What one Worker has to go through. */
export class Faults {
  readonly #plan: FaultPlan;

  constructor(plan: FaultPlan, life: number) {
    this.#plan = plan.filter((fault) => fault.life === life);
  }

  /** Whether `place` is to fail at `step`. */
  at(place: FaultPlace, step: number): boolean {
    return this.#plan.some((fault) => fault.place === place && fault.step === step);
  }
}
