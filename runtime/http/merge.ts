/** Runs several sources side by side. */

/**
 * Starts at most `limit` sources at a time and yields their values as they come; each source keeps
 * its own order. When one throws, or the iteration ends early, the others are ended as well.
 */
export async function* mergeSources<T>(
  starts: readonly (() => AsyncGenerator<T>)[],
  limit: number,
): AsyncGenerator<T> {
  interface Arrival {
    readonly source: AsyncGenerator<T>;
    readonly next: IteratorResult<T>;
  }
  const waiting = [...starts];
  const open = new Set<AsyncGenerator<T>>();
  const running = new Map<AsyncGenerator<T>, Promise<Arrival>>();
  const advance = (source: AsyncGenerator<T>) => {
    const arrival = source.next().then((next) => ({ source, next }));
    // The race below reports a failure; one that loses the race must not count as unhandled.
    arrival.catch(() => {});
    running.set(source, arrival);
  };
  try {
    while (waiting.length > 0 || running.size > 0) {
      while (open.size < limit && waiting.length > 0) {
        const source = waiting.shift()!();
        open.add(source);
        advance(source);
      }
      const { source, next } = await Promise.race(running.values());
      running.delete(source);
      if (next.done) {
        open.delete(source);
        continue;
      }
      yield next.value;
      advance(source);
    }
  } finally {
    for (const source of open) source.return(undefined).catch(() => {});
  }
}

/**
 * The source with each value changed. No generator: it would cost each token several turns.
 */
export function mapSource<T, U>(
  source: AsyncGenerator<T>,
  change: (value: T) => U,
): AsyncGenerator<U> {
  const changed = (result: IteratorResult<T>): IteratorResult<U> =>
    result.done ? result : { done: false, value: change(result.value) };
  return {
    next: () => source.next().then(changed),
    return: (value) => source.return(value).then(changed),
    throw: (error) => source.throw(error).then(changed),
    [Symbol.asyncIterator]() {
      return this;
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
