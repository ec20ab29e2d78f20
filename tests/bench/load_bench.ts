/**
 * How fast a model folder's weights reach a device that only copies them, with the thread that
 * reads ahead and without, in one run: `kedge synth` makes a folder of any size.
 *
 * usage: deno run -A tests/bench/load_bench.ts FOLDER [q4|q8|fp8|bf16]
 */
import { loadWeights, type WeightTarget } from "../../runtime/weights/loader.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";
import { residentWeights, type WeightChoice } from "../../runtime/weights/resident.ts";

const [directory, choice] = Deno.args;
if (directory === undefined) throw new Error("wanted a model folder, found none");
const RUNS = 3;
const GIB = 2 ** 30;

/** Copies as `queue.writeBuffer` does, to memory that is too large for a cache. */
class CopyingTarget implements WeightTarget {
  readonly #memory = new Uint8Array(64 * 2 ** 20);
  #at = 0;

  declare(): void {}
  writeScales(): void {}

  write(_key: string, _matrix: number, _offset: number, bytes: Uint8Array): void {
    if (this.#at + bytes.length > this.#memory.length) this.#at = 0;
    this.#memory.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  writeGroupScales(key: string, matrix: number, offset: number, bytes: Uint8Array): void {
    this.write(key, matrix, offset, bytes);
  }
}

const folder = await openModelFolder(directory);
const weights = residentWeights(folder.tensors.weights, (choice as WeightChoice) ?? "file");
for (let run = 0; run < RUNS; run++) {
  for (const readsAhead of [true, false]) {
    const target = new CopyingTarget();
    const { bytes, seconds } = await loadWeights(folder, target, () => {}, weights, readsAhead);
    const rate = (bytes / seconds / GIB).toFixed(2);
    console.log(`${readsAhead ? "reading ahead" : "one thread   "} ${rate} GiB/s`);
  }
}
