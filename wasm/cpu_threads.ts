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
  readonly #workers: Worker[] = [];

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Starts `count` Workers; resolves when all of them work. Throws where one can't start. */
  async start(
    count: number,
    build: Pick<HelperStart, "variant" | "module" | "memory">,
  ): Promise<void> {
    const ready: Promise<void>[] = [];
    for (let thread = 1; thread <= count; thread++) {
      const url = new URL("./cpu_helper.ts", import.meta.url);
      const worker = new Worker(url, { type: "module", name: `cpu-${thread}` });
      this.#workers.push(worker);
      ready.push(
        new Promise((resolve, reject) => {
          worker.onmessage = () => resolve();
          worker.onerror = (event) => {
            event.preventDefault();
            reject(new Error(`start helper thread ${thread} of the cpu device: ${event.message}`));
          };
        }),
      );
      const start: HelperStart = { ...build, pool: this.#pool.poolPointer(), thread };
      worker.postMessage(start);
    }
    await Promise.all(ready);
  }

  /** Ends the Workers. Nothing of theirs is in the device's memory when this returns. */
  stop(): void {
    this.#pool.stopHelpers();
    const end = performance.now() + LEAVE_MS;
    while (this.#pool.helpers() > 0 && performance.now() < end);
    for (const worker of this.#workers) worker.terminate();
    this.#workers.length = 0;
  }
}
