import { randomIntegers } from "../../../runtime/cli/statistics.ts";
import { Llama, llamaBuild } from "./llama.ts";
import type { Measured, Side, SideOptions, Work } from "./work.ts";

/** llama.cpp as one side. */
export async function openLlamaSide(options: SideOptions): Promise<Side> {
  const { model, device, threads, sequences, contextTokens, vocabularySize, flashAttention } =
    options;
  const build = llamaBuild(device);
  const llama = await Llama.open(model, {
    build,
    threads,
    sequences,
    contextTokens,
    flashAttention,
  });
  const prompt = (seed: number, tokens: number) =>
    Uint32Array.from(randomIntegers(seed, vocabularySize, tokens));
  return {
    ready: { description: llama.description, modelBytes: llama.modelBytes },
    run: (work, seed) => measure(llama, work, (text) => prompt(seed + text, work.promptTokens)),
    close: () => llama.close(),
  };
}

async function measure(
  llama: Llama,
  work: Work,
  prompt: (text: number) => Uint32Array,
): Promise<Measured> {
  const batch = work.kind === "decode" ? work.batch : 1;
  let tokens: number[] = [];
  let began = performance.now();
  for (let text = 0; text < batch; text++) {
    llama.clear(text);
    tokens.push(await llama.prefill(text, prompt(text)));
  }
  let count = work.promptTokens;
  if (work.kind === "decode") {
    began = performance.now();
    for (let step = 1; step < work.tokens; step++) {
      if (work.bare) await llama.stepWithoutSampling(tokens);
      else tokens = await llama.step(tokens);
    }
    count = batch * (work.tokens - 1);
  }
  return { tokensPerSecond: count / (performance.now() - began) * 1000 };
}
