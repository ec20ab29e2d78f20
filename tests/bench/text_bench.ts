/**
 * Speed of the text module in this thread:
 *
 *   deno run -A tests/bench/text_bench.ts
 *
 * Prints the megabytes of English a second that the embedded model's tokenizer encodes and decodes,
 * the whole messages of eval.jsonl.gz one by one and joined, and the microseconds to sample from
 * rows
 * of 163,840 logits, the copy of the row included. Best and middle of many runs.
 */
import { type SampleParameters, Sampler } from "../../wasm/text.ts";
import { normals, randomSource } from "../reference/random.ts";
import { kedgeTinyTokenizer } from "../wasm/kedge_tiny_tokenizer.ts";

const ROUNDS = 60;
const VOCABULARY_SIZE = 163_840;
const PEAKS = 60;
/** Of logits that leave a nucleus of thousands of tokens. */
const FLAT_DEVIATION = 2.5;

/** Milliseconds of `work`: best and middle of ROUNDS runs, after a tenth as many unmeasured. */
function time(work: () => void): { best: number; middle: number } {
  for (let i = 0; i < ROUNDS / 10; i++) work();
  const times = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    work();
    return performance.now() - start;
  }).sort((a, b) => a - b);
  return { best: times[0]!, middle: times[ROUNDS >> 1]! };
}

async function readMessages(): Promise<string[]> {
  const file = await Deno.open(new URL("../../models/kedge-tiny/eval.jsonl.gz", import.meta.url));
  const plain = file.readable.pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(plain).text()).trim().split("\n");
  return lines.flatMap((line) => {
    const { messages }: { messages: { content: string }[] } = JSON.parse(line);
    return messages.map((message) => message.content);
  });
}

function benchTokenizer(messages: readonly string[]): void {
  const tokenizer = kedgeTinyTokenizer();
  const text = messages.join("\n");
  const ids = tokenizer.encode(text);
  const megabytes = new TextEncoder().encode(text).length / 1e6;
  const cases: [string, () => void][] = [
    ["encode, joined", () => tokenizer.encode(text)],
    [`encode, ${messages.length} messages`, () => messages.forEach((m) => tokenizer.encode(m))],
    ["decode, joined", () => tokenizer.decode(ids)],
  ];
  console.log(`${megabytes.toFixed(2)} MB of English, ${ids.length} tokens; MB/s best, middle`);
  for (const [name, work] of cases) {
    const { best, middle } = time(work);
    const speed = (milliseconds: number) =>
      (megabytes / milliseconds * 1000).toFixed(1).padStart(8);
    console.log(`  ${name.padEnd(44)}${speed(best)}${speed(middle)}`);
  }
  tokenizer.free();
}

const samplerCases: readonly Partial<SampleParameters>[] = [
  { temperature: 0 },
  {},
  { topK: 50 },
  { topP: 0.95 },
  { minP: 0.05 },
  { topK: 1000 },
  { topK: 5000 },
  { temperature: 0.6, topP: 0.95 },
  { temperature: 0.6, topK: 1000, topP: 0.95 },
  { temperature: 0.6, topK: 50, topP: 0.95, minP: 0.05 },
  { temperature: 1.5, topP: 0.99 },
  { temperature: 3, topP: 0.95 },
  { temperature: 0.6, topP: 0.95, minP: 0.05 },
  { typicalP: 0.95 },
];

function benchSampler(title: string, row: Float32Array): void {
  const sampler = new Sampler(row.length);
  const all = { temperature: 1, topK: 0, typicalP: 1, topP: 1, minP: 0, seed: 1 };
  console.log(`${title} row of ${row.length} logits; microseconds best, middle`);
  const print = (name: string, work: () => void) => {
    const { best, middle } = time(work);
    const micros = (milliseconds: number) => (milliseconds * 1000).toFixed(0).padStart(8);
    console.log(`  ${name.padEnd(44)}${micros(best)}${micros(middle)}`);
  };
  for (const parameters of samplerCases) {
    let position = 0;
    const name = Object.entries(parameters).map(([key, value]) => `${key} ${value}`).join(", ");
    print(`sample, ${name || "temperature 1"}`, () => {
      sampler.sample(row, { ...all, ...parameters }, position++);
    });
  }
  print("logprobs, 20 best", () => sampler.logprobs(row, 0, 20));
  sampler.free();
}

/** A row as trained models give: most far below some tens of likely tokens. */
function peakedRow(): Float32Array {
  const random = randomSource(1);
  const row = normals(random, VOCABULARY_SIZE, 3);
  for (let i = 0; i < PEAKS; i++) {
    row[Math.floor(random() * VOCABULARY_SIZE)] = 15 + 5 * random();
  }
  return row;
}

benchTokenizer(await readMessages());
benchSampler("Peaked", peakedRow());
benchSampler("Flat", normals(randomSource(2), VOCABULARY_SIZE, FLAT_DEVIATION));
