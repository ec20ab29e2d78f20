/** The reading thread: fills slots in order and waits for the loader to empty them. */

import { readFully } from "./folder_files.ts";
import { READ_EMPTY, READ_FAILED, READ_FULL, type ReadOrder } from "./read_protocol.ts";

const scope = self as unknown as DedicatedWorkerGlobalScope;

scope.onmessage = ({ data }: MessageEvent<ReadOrder>) => {
  readAll(data);
  scope.close();
};

/** Ends at the first piece that can't be read: the loader reads it again and says what is wrong. */
function readAll({ reads, slots, states }: ReadOrder): void {
  const files = new Map<string, Deno.FsFile>();
  for (const [index, { path, offset, length }] of reads.entries()) {
    const slot = index % slots.length;
    for (let state = READ_FULL; state !== READ_EMPTY;) {
      state = Atomics.load(states, slot);
      if (state !== READ_EMPTY) Atomics.wait(states, slot, state);
    }
    let filled = false;
    try {
      const file = files.get(path) ?? Deno.openSync(path, { read: true });
      files.set(path, file);
      filled = readFully(file, offset, slots[slot]!.subarray(0, length));
    } catch {
      filled = false;
    }
    Atomics.store(states, slot, filled ? READ_FULL : READ_FAILED);
    Atomics.notify(states, slot);
    if (!filled) return;
  }
}
