/**
 * Values that come in their time, as generators that never wait: `null` says that none is there
 * yet. So what the engine made in one step passes every layer up to the connection in one call.
 * A source that had nothing tells the lifetime of its request, life.wake(), once it may have.
 */
import type { Lifetime } from "./lifetime.ts";

export type Source<T> = Generator<T | null, void>;

/** A source that was started. */
export type StartedSource<T> = IteratorObject<T | null, void>;

/** The source's values for a reader that waits for each. */
export async function* valuesOf<T>(source: Source<T>, life: Lifetime): AsyncGenerator<T> {
  for (const value of source) {
    if (value === null) await life.woken();
    else yield value;
  }
}

/** Nothing until the work has ended. Throws what it throws. */
export function* waitFor(work: Promise<void>, life: Lifetime): Source<never> {
  let isOver = false;
  let failure: { readonly error: unknown } | null = null;
  work.catch((error) => failure = { error }).finally(() => {
    isOver = true;
    life.wake();
  });
  while (!isOver) yield null;
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

/**
 * Starts the source: waits for its first value, but at most `milliseconds`. A source that refuses
 * in that time throws here, while the status of the answer is still open.
 */
export async function startSource<T>(
  source: Source<T>,
  life: Lifetime,
  milliseconds: number,
): Promise<StartedSource<T>> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    life.wake();
  }, milliseconds);
  try {
    let first = source.next();
    while (first.done !== true && first.value === null && !isLate) {
      await life.woken();
      first = source.next();
    }
    return new ResumedSource(source, first);
  } finally {
    clearTimeout(timer);
  }
}

/** The source from `first` on. No generator: it would cost each token a turn more. */
class ResumedSource<T> extends Iterator<T | null, void> {
  readonly #source: Source<T>;
  #first: IteratorResult<T | null, void> | null;

  constructor(source: Source<T>, first: IteratorResult<T | null, void>) {
    super();
    this.#source = source;
    this.#first = first;
  }

  override next(): IteratorResult<T | null, void> {
    const next = this.#first ?? this.#source.next();
    this.#first = null;
    return next;
  }

  override return(): IteratorResult<T | null, void> {
    return this.#source.return();
  }
}

/**
 * Starts at most `limit` sources at a time and yields their values as they come; each source keeps
 * its own order. When one throws, or the iteration ends early, the others are ended as well.
 */
export function* mergeSources<T>(
  starts: readonly (() => Source<T>)[],
  limit: number,
): Source<T> {
  const waiting = [...starts];
  const open = new Set<Source<T>>();
  try {
    while (waiting.length > 0 || open.size > 0) {
      while (open.size < limit && waiting.length > 0) open.add(waiting.shift()!());
      let isIdle = true;
      for (const source of open) {
        const { done, value } = source.next();
        if (done === true) open.delete(source);
        if (done !== true && value === null) continue;
        isIdle = false;
        if (done !== true) yield value;
      }
      if (isIdle) yield null;
    }
  } finally {
    for (const source of open) source.return();
  }
}
