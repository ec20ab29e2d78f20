/**
 * Time of a prefill by block, at the 48 B shape with random q4 weights, a few layers of it:
 *
 *   deno run -A tests/bench/prefill_bench.ts [--small]
 *
 * Prints milliseconds a layer of each block by rows of the step, and what the model's 27 layers
 * would take with them. A block's time is that of a chain of calls in one step less the time of one
 * call. `--small`: the tests' micro checkpoint's shape, for a software adapter.
 */
import { WebGpuDevice } from "../../kernels/webgpu.ts";
import { parseModelConfig } from "../../runtime/model/config.ts";
import type { ModelShape, StepPlan } from "../../runtime/model/device.ts";
import { SYNTH_SKEW_DEFAULT } from "../../runtime/limits.ts";
import { loadSynthetic } from "../../runtime/weights/synthetic.ts";

const SMALL = Deno.args.includes("--small");
const CONFIG = new URL(
  SMALL ? "../golden/micro/config.json" : "../../models/kimi-linear-48b/config.json",
  import.meta.url,
);
const ROW_COUNTS = SMALL ? [16, 40] : [512, 2_048, 8_192];
/** Tokens before the rows, in the last row of the table: attention grows with them. */
const PAST = SMALL ? 64 : 32_768;
const PAGE_TOKENS = 64;
const CHAIN = SMALL ? 2 : 6;
const ROUNDS = SMALL ? 1 : 3;

const shape = parseModelConfig(JSON.parse(Deno.readTextFileSync(CONFIG)), "config.json").shape;
const layers: ModelShape["layers"] = [
  { mixer: "kda", feedForward: "dense" },
  { mixer: "mla", feedForward: "moe" },
];
const few: ModelShape = { ...shape, layers };
const device = await WebGpuDevice.create(few);
const began = performance.now();
loadSynthetic(few, "q4", { seed: 1, skew: SYNTH_SKEW_DEFAULT }, device);
const rowsMax = Math.max(...ROW_COUNTS);
const pages = Math.ceil((PAST + rowsMax) / PAGE_TOKENS);
await device.configure({
  slots: 1,
  pages,
  pageTokens: PAGE_TOKENS,
  rows: rowsMax,
  logitRows: 1,
  sequences: 1,
  pagesPerSequence: pages,
  logitEdits: 1,
  latentFormat: "f16",
});
console.log(`adapter: ${device.description}, q4, configured in ${secondsSince(began)} s`);

const BLOCKS = {
  kda: () => device.kda(0),
  mla: () => device.mla(1),
  dense: () => device.dense(0),
  moe: () => device.moe(1),
};
type Block = keyof typeof BLOCKS;
const counts: Readonly<Record<Block, number>> = {
  kda: shape.layers.filter(({ mixer }) => mixer === "kda").length,
  mla: shape.layers.filter(({ mixer }) => mixer === "mla").length,
  dense: shape.layers.filter(({ feedForward }) => feedForward === "dense").length,
  moe: shape.layers.filter(({ feedForward }) => feedForward === "moe").length,
};

console.log("rows   past    kda ms  mla ms  dense   moe ms  all layers ms  tokens/s");
for (const rowCount of ROW_COUNTS) await row(rowCount, 0);
await row(ROW_COUNTS.at(-2)!, PAST);
device.destroy();

async function row(rowCount: number, past: number): Promise<void> {
  const times: number[] = [];
  let total = 0;
  for (const block of Object.keys(BLOCKS) as Block[]) {
    const ms = await blockMs(block, rowCount, past);
    times.push(ms);
    total += counts[block] * ms;
  }
  console.log(
    `${rowCount}`.padEnd(7) + `${past}`.padEnd(8) +
      times.map((ms) => ms.toFixed(2).padEnd(8)).join("") + total.toFixed(1).padEnd(15) +
      (rowCount / total * 1e3).toFixed(0),
  );
}

/** Milliseconds of one call: the best of the rounds. */
async function blockMs(block: Block, rowCount: number, past: number): Promise<number> {
  const plan: StepPlan = {
    tokens: Uint32Array.from({ length: rowCount }, (_, i) => (i * 7_919) % shape.vocabularySize),
    feeds: null,
    sequences: [{
      slot: 0,
      rowStart: 0,
      rowCount,
      past,
      pages: Uint32Array.from({ length: Math.ceil((past + rowCount) / PAGE_TOKENS) }, (_, i) => i),
    }],
    logits: [],
  };
  const run = async (calls: number) => {
    device.zeroSlot(0);
    device.begin(plan);
    device.embed();
    for (let i = 0; i < calls; i++) BLOCKS[block]();
    const start = performance.now();
    await device.finish().result();
    return performance.now() - start;
  };
  await run(1);
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const once = await run(1);
    best = Math.min(best, (await run(CHAIN) - once) / (CHAIN - 1));
  }
  return best;
}

function secondsSince(start: number): string {
  return ((performance.now() - start) / 1e3).toFixed(1);
}
