/** The helper threads of one device. */
import type { HelperStart } from "./cpu_helper.ts";

/** Milliseconds that helpers get to leave the device's memory. */
const LEAVE_MS = 500;

/** What the threads need of the module's `Cpu`. */
interface Pool {
  poolPointer(): number;
  helpers(): number;
  stopHelpers(): void;
}

export class HelperThreads {
  readonly #pool: Pool;
  readonly #workers: readonly Worker[];

  /**
   * Starts `count` Workers. They join by themselves; nobody waits for them, because Deno takes a
   * second to start a Worker of a Worker. One that fails makes an error event of this thread.
   */
  constructor(
    pool: Pool,
    count: number,
    build: Pick<HelperStart, "variant" | "module" | "memory">,
  ) {
    this.#pool = pool;
    this.#workers = Array.from({ length: count }, (_, i) => {
      const url = new URL("./cpu_helper.ts", import.meta.url);
      const worker = new Worker(url, { type: "module", name: `cpu-${i + 1}` });
      // Only to a Worker that is there: Deno never frees memory in a message that nobody received.
      worker.onmessage = () => {
        const start: HelperStart = { ...build, pool: pool.poolPointer(), thread: i + 1 };
        worker.postMessage(start);
      };
      return worker;
    });
  }

  /** Helpers that have joined. */
  get count(): number {
    return this.#pool.helpers();
  }

  /** Ends the Workers. Nothing of theirs is in the device's memory when this returns. */
  stop(): void {
    this.#pool.stopHelpers();
    const end = performance.now() + LEAVE_MS;
    while (this.#pool.helpers() > 0 && performance.now() < end);
    for (const worker of this.#workers) worker.terminate();
  }
}
