import { randomIntegers } from "../../../runtime/cli/statistics.ts";
import type { Engine } from "../../../runtime/engine/engine.ts";
import { GREEDY_SAMPLING } from "../../../runtime/engine/sampling.ts";
import { startEngine } from "../../../runtime/engine/start.ts";
import type { Measured, Side, SideOptions, Work } from "./work.ts";

/** Kedge's engine as one side, seen from where its HTTP layer stands. */
export async function openKedgeSide(options: SideOptions): Promise<Side> {
  const { model: modelDirectory, device, sequences: slots, contextTokens, weights } = options;
  const engine = await startEngine({ modelDirectory, device, slots, contextTokens, weights });
  const { model } = engine;
  const description = `Kedge ${model.device} (${model.deviceDescription})`;
  return {
    ready: { description, modelBytes: model.weightBytes },
    run: (work, seed) => measure(engine, work, seed),
    close: () => engine.close(),
  };
}

async function measure(engine: Engine, work: Work, seed: number): Promise<Measured> {
  const began = performance.now();
  const isDecode = work.kind === "decode";
  const texts = await Promise.all(
    Array.from(
      { length: isDecode ? work.batch : 1 },
      (_, text) => tokenTimes(engine, work.promptTokens, isDecode ? work.tokens : 1, seed + text),
    ),
  );
  const firsts = texts.map((times) => times[0]!);
  if (!isDecode) return { tokensPerSecond: work.promptTokens / (firsts[0]! - began) * 1000 };
  // While all texts decode: from the last one's first token to the first one's last.
  const begin = Math.max(...firsts);
  const end = Math.min(...texts.map((times) => times.at(-1)!));
  const counted = texts.flat().filter((time) => time > begin && time <= end).length;
  return { tokensPerSecond: counted / (end - begin) * 1000 };
}

/** When each token of a prompt of random ids, continued greedily, arrived; no token ends it. */
async function tokenTimes(
  engine: Engine,
  promptTokens: number,
  maxTokens: number,
  seed: number,
): Promise<number[]> {
  const times: number[] = [];
  const request = {
    promptIds: Uint32Array.from(randomIntegers(seed, engine.model.vocabularySize, promptTokens)),
    maxTokens,
    sampling: GREEDY_SAMPLING,
    minTokens: 0,
    grammar: null,
    stopIds: [],
    logprobs: null,
    promptLogprobs: false,
    progress: false,
    owner: "",
  };
  for await (const event of engine.generate(request)) {
    if (event.type === "token") times.push(performance.now());
  }
  return times;
}
