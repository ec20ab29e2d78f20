/**
 * The same work on Kedge and on llama.cpp in one run; README.md beside it says how to read it:
 *
 *     ./kedge deno run -A tests/bench/peer/bench.ts --device cpu --quant Q8_0
 */
import { existsSync } from "node:fs";
import { median } from "../../../runtime/cli/statistics.ts";
import { convertCheckpoint } from "./convert.ts";
import { LLAMA_PACKAGES, llamaBuild } from "./llama.ts";
import { type BenchOptions, parseBenchOptions } from "./options.ts";
import { withEqualHeads } from "./pad_heads.ts";
import { SideProcess } from "./side_process.ts";
import { type Report, type Row, type Start, tableText } from "./report.ts";
import { KEDGE, type SideOptions, type Work } from "./work.ts";

/** What is asked first: a short answer to a prompt of some sentences. */
const FIRST_ANSWER: Work = { kind: "decode", batch: 1, promptTokens: 128, tokens: 8, bare: false };

const WARM_UP_SEED = 500;
/** More than the texts of one batch: each has a seed of its own. */
const SEED_STRIDE = 1_000;

const options = parseBenchOptions(Deno.args);
const scratch = Deno.makeTempDirSync({ prefix: "kedge-peer-" });
try {
  const report = await bench(options);
  console.log(options.json ? JSON.stringify(report) : tableText(report));
} finally {
  Deno.removeSync(scratch, { recursive: true });
}

async function bench(options: BenchOptions): Promise<Report> {
  const sides = await prepareSides(options, scratch);
  const starts: Start[] = [];
  const processes = new Map<string, SideProcess>();
  try {
    // One after the other: the start of each is measured.
    for (const [name, side] of sides) {
      const process = new SideProcess(side, options.realtime, `${scratch}/cache-${name}`);
      processes.set(name, process);
      starts.push(await measureStart(name, process));
    }
    const rows: Row[] = [];
    const deadline = performance.now() + options.seconds * 1000;
    for (const work of options.works) {
      if (performance.now() < deadline) {
        rows.push(await measureRow(processes, work, options.rounds, deadline));
      }
    }
    const weights = options.gguf ?? options.quantisation;
    const model = options.peerOnly && options.gguf !== undefined ? weights : options.model;
    return { model, weights, starts, rows };
  } finally {
    for (const process of processes.values()) await process.close();
  }
}

/** The sides by name, with their models in place. */
async function prepareSides(
  options: BenchOptions,
  scratch: string,
): Promise<Map<string, SideOptions>> {
  const { device, gguf, peerOnly, quantisation } = options;
  await installLlama(device);
  const needsModel = !peerOnly || gguf === undefined;
  const model = needsModel ? await withEqualHeads(options.model, `${scratch}/model`) : "";
  const path = gguf ?? `${scratch}/model.gguf`;
  if (gguf === undefined) await convertCheckpoint(model, path, quantisation);
  const longest = options.works.map((work) =>
    work.promptTokens + (work.kind === "decode" ? work.tokens : 1)
  );
  const common = {
    device,
    flashAttention: options.flashAttention,
    vocabularySize: JSON.parse(Deno.readTextFileSync(options.config)).vocab_size as number,
    sequences: Math.max(...options.works.map((work) => work.kind === "decode" ? work.batch : 1)),
    contextTokens: Math.max(FIRST_ANSWER.promptTokens + 64, ...longest),
  };
  const sides = new Map<string, SideOptions>();
  if (!peerOnly) {
    sides.set(KEDGE, { ...common, engine: "kedge", model, threads: 0, weights: options.weights });
  }
  for (const threads of options.threads) {
    const name = device === "cpu" ? `llama.cpp, ${threads} threads` : "llama.cpp";
    sides.set(name, { ...common, engine: "llama", model: path, threads });
  }
  return sides;
}

/** The packages of `llama/deno.json`, once. */
async function installLlama(device: SideOptions["device"]): Promise<void> {
  const cwd = decodeURIComponent(new URL("llama/", import.meta.url).pathname);
  const name = LLAMA_PACKAGES[llamaBuild(device)];
  if (existsSync(`${cwd}node_modules/@node-llama-cpp/${name}`)) return;
  const args = ["install", "--quiet", "--frozen"];
  const { success } = await new Deno.Command(Deno.execPath(), { args, cwd, stdout: "null" })
    .output();
  if (!success) throw new Error(`install llama.cpp: "deno ${args.join(" ")}" in "${cwd}" failed`);
}

async function measureStart(name: string, process: SideProcess): Promise<Start> {
  const seconds = () => (performance.now() - process.startedAt) / 1000;
  const { description, modelBytes } = await process.ready();
  const readySeconds = seconds();
  await process.run(FIRST_ANSWER, 1);
  const firstAnswerSeconds = seconds();
  await process.run(FIRST_ANSWER, 2);
  const laterAnswerSeconds = seconds() - firstAnswerSeconds;
  return { name, description, modelBytes, readySeconds, firstAnswerSeconds, laterAnswerSeconds };
}

/** Rounds of one measurement a side, so that what else the machine does hits all sides alike. */
async function measureRow(
  processes: ReadonlyMap<string, SideProcess>,
  work: Work,
  roundsMost: number,
  deadline: number,
): Promise<Row> {
  const rates = new Map<string, number[]>();
  let rounds = 0;
  while (rounds < roundsMost && (rounds === 0 || performance.now() < deadline)) {
    for (const [name, process] of processes) {
      if (work.kind === "decode" && work.bare && name === KEDGE) continue;
      // Sizes that a side meets for the first time may cost it something once.
      if (rounds === 0) await process.run(work, WARM_UP_SEED);
      const { tokensPerSecond } = await process.run(work, SEED_STRIDE * rounds);
      rates.set(name, [...rates.get(name) ?? [], tokensPerSecond]);
    }
    rounds++;
  }
  return rowOf(work, rates, rounds);
}

function rowOf(work: Work, rates: ReadonlyMap<string, readonly number[]>, rounds: number): Row {
  const medians = new Map([...rates].map(([name, values]) => [name, median(values)]));
  const peers = [...medians].filter(([name]) => name !== KEDGE).toSorted((a, b) => b[1] - a[1]);
  const peer = rates.get(peers[0]![0])!;
  const ratio = rates.get(KEDGE)?.map((rate, round) => rate / peer[round]!) ?? null;
  return {
    work,
    tokensPerSecond: Object.fromEntries(medians),
    ratio: ratio === null ? null : median(ratio),
    ratios: ratio,
    rounds,
  };
}
