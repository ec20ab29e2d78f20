/**
 * Scores the evaluation items of models/kedge-tiny against a running server.
 *
 * usage: deno run -A tests/bench/evaluate.ts [--url http://127.0.0.1:PORT] [--share 1] [--at-once
 * 8]
 *
 * Every item is a chat request at temperature 0; it counts when the answer's text is exactly the
 * expected one and ends by itself. Each task's share of exact answers must be what the independent
 * implementation reached (eval-oracle.json), one item in ten aside. Exit status 1 otherwise.
 */
import { parseArgs } from "node:util";

interface Item {
  readonly task: string;
  readonly messages: unknown[];
  readonly tools: unknown[] | null;
  readonly prompt_ids: number[];
  readonly answer_ids: number[];
}

interface Score {
  exact: number;
  count: number;
}

const FOLDER = new URL("../../models/kedge-tiny/", import.meta.url);
/** Items of a task that rounding may turn, as a share. */
const TOLERANCE = 0.1;

const { values } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:11500" },
    /** 0.1 takes every tenth item: one a task. */
    share: { type: "string", default: "1" },
    "at-once": { type: "string", default: "8" },
  },
});

async function readItems(): Promise<Item[]> {
  const file = await Deno.open(new URL("eval.jsonl.gz", FOLDER));
  const text = await new Response(file.readable.pipeThrough(new DecompressionStream("gzip")))
    .text();
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

async function post(path: string, body: unknown) {
  const response = await fetch(`${values.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const json = await response.json();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(json)}`);
  return json;
}

/** The text that the answer's ids stand for, without the end-of-turn marker. */
async function expectedText(item: Item): Promise<string> {
  return (await post("/detokenize", { tokens: item.answer_ids.slice(0, -1) })).content;
}

async function isExact(item: Item): Promise<boolean> {
  const answer = await post("/v1/chat/completions", {
    messages: item.messages,
    ...(item.tools === null ? {} : { tools: item.tools }),
    temperature: 0,
    max_tokens: item.answer_ids.length,
  });
  if (answer.usage.prompt_tokens !== item.prompt_ids.length) {
    throw new Error(
      `${item.task}: wanted a prompt of ${item.prompt_ids.length} tokens, ` +
        `found ${answer.usage.prompt_tokens}`,
    );
  }
  const [choice] = answer.choices;
  return choice.finish_reason === "stop" && choice.message.content === await expectedText(item);
}

async function main(): Promise<number> {
  const oracle: Record<string, number> = JSON.parse(
    await Deno.readTextFile(new URL("eval-oracle.json", FOLDER)),
  );
  const step = Math.round(1 / Number(values.share));
  const items = (await readItems()).filter((_, index) => index % step === 0);
  const scores = new Map<string, Score>();
  const waiting = [...items];
  const began = performance.now();
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      const score = scores.get(item.task) ?? { exact: 0, count: 0 };
      scores.set(item.task, score);
      score.count++;
      if (await isExact(item)) score.exact++;
    }
  };
  await Promise.all(Array.from({ length: Number(values["at-once"]) }, worker));
  let failed = 0;
  let exact = 0;
  for (const [task, score] of scores) {
    const wanted = oracle[task];
    if (wanted === undefined) throw new Error(`eval-oracle.json has no task "${task}"`);
    const allowed = Math.max(1, Math.round(TOLERANCE * score.count));
    const right = Math.abs(score.exact - wanted * score.count) <= allowed;
    if (!right) failed++;
    exact += score.exact;
    const found = `${score.exact} of ${score.count}`;
    console.log(`${right ? "ok  " : "FAIL"} ${task.padEnd(18)} ${found}, oracle ${wanted}`);
  }
  const seconds = (performance.now() - began) / 1_000;
  console.log(`${exact} of ${items.length} exact in ${seconds.toFixed(1)} s, ${failed} tasks off`);
  return failed === 0 && scores.size > 0 ? 0 : 1;
}

Deno.exit(await main());
