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

interface Text {
  readonly firstId: number;
  /** When each token arrived, in ms. */
  readonly times: readonly number[];
}

async function measure(engine: Engine, work: Work, seed: number): Promise<Measured> {
  const began = performance.now();
  const isDecode = work.kind === "decode";
  const texts = await Promise.all(
    Array.from(
      { length: isDecode ? work.batch : 1 },
      (_, text) => generate(engine, work.promptTokens, isDecode ? work.tokens : 1, seed + text),
    ),
  );
  const firstIds = texts.map(({ firstId }) => firstId);
  const firstTimes = texts.map(({ times }) => times[0]!);
  if (!isDecode) {
    return { tokensPerSecond: work.promptTokens / (firstTimes[0]! - began) * 1000, firstIds };
  }
  // While all texts decode: from the last one's first token to the first one's last.
  const begin = Math.max(...firstTimes);
  const end = Math.min(...texts.map(({ times }) => times.at(-1)!));
  const counted = texts.flatMap(({ times }) => times.filter((t) => t > begin && t <= end)).length;
  return { tokensPerSecond: counted / (end - begin) * 1000, firstIds };
}

/** A prompt of random ids, continued greedily; no token ends it. */
async function generate(
  engine: Engine,
  promptTokens: number,
  maxTokens: number,
  seed: number,
): Promise<Text> {
  const times: number[] = [];
  let firstId = -1;
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
    if (event.type !== "token") continue;
    if (times.length === 0) firstId = event.id;
    times.push(performance.now());
  }
  return { firstId, times };
}
