/**
 * Values that come in their time, as generators that never wait: `null` says that none is there
 * yet. So what the engine made in one step passes every layer up to the connection in one call.
 * A source that had nothing tells the lifetime of its request, life.wake(), once it may have.
 */
import type { Lifetime } from "./lifetime.ts";

export type Source<T> = Generator<T | null, void>;

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
): Promise<Source<T>> {
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
    return resume(source, first);
  } finally {
    clearTimeout(timer);
  }
}

/** The source from `first` on. */
function* resume<T>(source: Source<T>, first: IteratorResult<T | null, void>): Source<T> {
  if (first.done === true) return;
  yield first.value;
  yield* source;
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

/** The source with each value changed. */
export function* mapSource<T, U>(source: Source<T>, change: (value: T) => U): Source<U> {
  for (const value of source) yield value === null ? null : change(value);
}
