/**
 * What q8 and q4 weights do to a model's answers: kedge-tiny on its evaluation items, the golden
 * checkpoints on their prompts, beside the same model with its file's weights on the same device.
 *
 * usage: deno run -A tests/bench/quality.ts [--device cpu] [--share 0.25] [--longest 8400]
 *        [--rounded]
 *
 * KL divergence is that of the next token's distribution from the file's, in nats, over the tokens
 * of the answers (kedge-tiny) or of the prompt (golden). An item is exact when the best token at
 * each place of its answer is the answer's, which is what greedy decoding needs. With --rounded the
 * weights are rounded and handed over as f32, which shows what rounding weights alone costs, on any
 * device; without, the device multiplies integers and rounds activations too.
 */
import { parseArgs } from "node:util";
import { openDevice } from "../../runtime/engine/devices.ts";
import { PAGE_TOKENS } from "../../runtime/limits.ts";
import type { Device, StepPlan, TensorSpec } from "../../runtime/model/device.ts";
import { startStep } from "../../runtime/model/kimi_linear.ts";
import { loadWeights, type WeightTarget } from "../../runtime/weights/loader.ts";
import { type ModelFolder, openModelFolder } from "../../runtime/weights/model_folder.ts";
import { residentWeights } from "../../runtime/weights/resident.ts";
import { dequantizeGroups } from "../reference/formats.ts";
import { plainRows } from "../tools/logit_rows.ts";
import { readSafetensors } from "../tools/safetensors_reader.ts";

/** Tokens with logits wanted from `answerStart` - 1 on. */
interface Item {
  readonly task: string;
  readonly tokens: readonly number[];
  readonly answerStart: number;
}

interface Tally {
  readonly divergences: number[];
  sameBest: number;
  exact: number;
  items: number;
}

const CHOICES = ["file", "q8", "q4"] as const;
const STEP_ROWS = 128;
/** Tasks of kedge-tiny whose answer lies far back in the prompt. */
const LOOKING_BACK = /^(needle|multikey|multivalue|kv_json|recall)/;

const { values } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    /** 0.25 takes every fourth item. */
    share: { type: "string", default: "0.25" },
    /** Items with more tokens are left out: software adapters take a minute for 8,000. */
    longest: { type: "string", default: "8400" },
    rounded: { type: "boolean", default: false },
  },
});

/** Takes q8 and q4 and hands their values to `device` as f32. */
class RoundedTarget implements WeightTarget {
  readonly #specs = new Map<string, TensorSpec>();
  #elements = new Uint8Array(0);

  constructor(private readonly device: WeightTarget) {}

  declare(specs: readonly TensorSpec[]): void {
    for (const spec of specs) this.#specs.set(spec.key, spec);
    this.device.declare(specs.map((spec) => isGrouped(spec) ? { ...spec, format: "f32" } : spec));
  }

  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    if (isGrouped(this.#specs.get(key)!)) this.#elements = bytes.slice();
    else this.device.write(key, matrix, byteOffset, bytes);
  }

  writeScales(key: string, matrix: number, scales: Float32Array): void {
    this.device.writeScales(key, matrix, scales);
  }

  /** The loader sends the same rows' elements before. */
  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const { format, columns } = this.#specs.get(key)!;
    const rowBytes = 4 * Math.ceil(columns / 64);
    const rows = bytes.length / rowBytes;
    const scales = new Uint16Array(bytes.slice().buffer);
    const stored = { format: format as "q8" | "q4", rows, columns, bytes: this.#elements, scales };
    const floats = Float32Array.from(dequantizeGroups(stored));
    const at = byteOffset / rowBytes * columns * 4;
    this.device.write(key, matrix, at, new Uint8Array(floats.buffer));
  }
}

function isGrouped({ format }: TensorSpec): boolean {
  return format === "q8" || format === "q4";
}

async function load(
  folder: ModelFolder,
  choice: typeof CHOICES[number],
  longest: number,
): Promise<Device> {
  const device = await openDevice(values.device as "cpu" | "webgpu", folder.config.shape);
  const target = values.rounded ? new RoundedTarget(device) : device;
  const weights = residentWeights(folder.tensors.weights, choice);
  await loadWeights(folder, target, () => {}, weights);
  const pages = Math.ceil(longest / PAGE_TOKENS);
  await device.configure({
    ...{ slots: 1, sequences: 1, logitEdits: 1, latentFormat: "f16" },
    ...{ rows: STEP_ROWS, logitRows: STEP_ROWS, pageTokens: PAGE_TOKENS },
    ...{ pages, pagesPerSequence: pages },
  });
  return device;
}

/** Logits at each place whose next token is part of the answer. */
async function answerLogits(device: Device, folder: ModelFolder, item: Item) {
  const { shape } = folder.config;
  const rows: Float32Array[] = [];
  device.zeroSlot(0);
  const count = item.tokens.length - 1;
  for (let past = 0; past < count; past += STEP_ROWS) {
    const rowCount = Math.min(STEP_ROWS, count - past);
    const first = Math.max(0, item.answerStart - 1 - past);
    const wanted = Array.from({ length: Math.max(0, rowCount - first) }, (_, i) => first + i);
    const used = Math.ceil((past + rowCount) / PAGE_TOKENS);
    const plan: StepPlan = {
      tokens: Uint32Array.from(item.tokens.slice(past, past + rowCount)),
      feeds: null,
      sequences: [{
        slot: 0,
        rowStart: 0,
        rowCount,
        past,
        pages: Uint32Array.from({ length: used }, (_, index) => index),
      }],
      logits: plainRows(wanted),
    };
    const result = await startStep(device, shape, plan).result();
    for (const index of wanted.keys()) rows.push((await result.readRow(index)).slice());
  }
  return rows;
}

function best(row: Float32Array): number {
  return row.reduce((most, value, index) => value > row[most]! ? index : most, 0);
}

/** Of the distribution `found` from `wanted`, both as logits. */
function divergence(wanted: Float32Array, found: Float32Array): number {
  const logSum = (row: Float32Array) => {
    const most = row.reduce((a, b) => Math.max(a, b));
    return most + Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
  };
  const [wantedSum, foundSum] = [logSum(wanted), logSum(found)];
  return wanted.reduce((sum, logit, index) => {
    const log = logit - wantedSum;
    return sum + Math.exp(log) * (log - found[index]! + foundSum);
  }, 0);
}

function add(tally: Tally, item: Item, wanted: Float32Array[], found: Float32Array[]): void {
  let exact = true;
  found.forEach((row, index) => {
    tally.divergences.push(Math.max(0, divergence(wanted[index]!, row)));
    if (best(row) === best(wanted[index]!)) tally.sameBest++;
    exact &&= best(row) === item.tokens[item.answerStart + index];
  });
  tally.items++;
  if (exact) tally.exact++;
}

/** One model's rows of the table. */
async function measure(name: string, directory: string, items: readonly Item[]): Promise<void> {
  const folder = await openModelFolder(directory);
  const longest = Math.max(...items.map(({ tokens }) => tokens.length));
  const devices = [];
  for (const choice of CHOICES) devices.push(await load(folder, choice, longest));
  const tally = (): Tally => ({ divergences: [], sameBest: 0, exact: 0, items: 0 });
  const tallies = CHOICES.map(() => ({ all: tally(), back: tally() }));
  for (const item of items) {
    const wanted = await answerLogits(devices[0]!, folder, item);
    for (const [index, device] of devices.entries()) {
      const found = index === 0 ? wanted : await answerLogits(device, folder, item);
      add(tallies[index]!.all, item, wanted, found);
      if (LOOKING_BACK.test(item.task)) add(tallies[index]!.back, item, wanted, found);
    }
  }
  const { description } = devices[0]!;
  for (const device of devices) device.destroy();
  for (const [index, { all, back }] of tallies.entries()) {
    const sorted = all.divergences.toSorted((a, b) => a - b);
    const mean = sorted.reduce((sum, x) => sum + x, 0) / sorted.length;
    const high = sorted[Math.floor(sorted.length * 0.99)]!;
    const scored = all.items > 1;
    const cells = [
      name,
      CHOICES[index]!,
      mean.toExponential(1),
      high.toExponential(1),
      `${(100 * all.sameBest / sorted.length).toFixed(1)} % of ${sorted.length}`,
      scored ? `${all.exact} of ${all.items}` : "-",
      scored ? `${back.exact} of ${back.items}` : "-",
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
  console.error(`${name}: ${description}`);
}

async function tinyItems(): Promise<Item[]> {
  const path = new URL("../../models/kedge-tiny/eval.jsonl.gz", import.meta.url);
  const stream = (await Deno.open(path)).readable.pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(stream).text()).trim().split("\n");
  const step = Math.round(1 / Number(values.share));
  return lines.filter((_, index) => index % step === 0).map((line) => {
    const { task, prompt_ids, answer_ids } = JSON.parse(line);
    return { task, tokens: [...prompt_ids, ...answer_ids], answerStart: prompt_ids.length };
  }).filter(({ tokens }) => tokens.length <= Number(values.longest));
}

const path = (name: string) => new URL(`../../${name}`, import.meta.url).pathname;
console.log("| model | weights | KL, mean | KL, 99 % | same best token | exact | looking back |");
console.log("|---|---|---|---|---|---|---|");
await measure("kedge-tiny", path("models/kedge-tiny"), await tinyItems());
for (const name of ["micro", "odd", "fp8"]) {
  const golden = readSafetensors(path(`tests/golden/${name}/golden.safetensors`));
  const tokens = [...golden.get("input_ids")!.values];
  await measure(name, path(`tests/golden/${name}`), [{ task: name, tokens, answerStart: 1 }]);
}
