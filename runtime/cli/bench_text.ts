/** Speed of the text module: tokenizer and sampler, through the WASM boundary. */
import { Sampler, type Tokenizer } from "../../wasm/text.ts";
import { median, randomIntegers } from "./statistics.ts";

/** The vocabulary of the 48B model. */
export const SAMPLER_LOGITS = 163_840;

const TEXT_BYTES = 1_000_000;
const SAMPLER_DRAWS = 50;
/** Logits as a model gives them are close to normal: here sums of uniform integers. */
const LOGIT_TERMS = 12;
const LOGIT_STEPS = 2 ** 20;
const LOGIT_DEVIATION = 2.5;

/** Sentences to shuffle: enough different words to be English, few enough to read. */
const SENTENCES: readonly string[] = [
  "The harbour was quiet before sunrise, and only the gulls argued over the nets.",
  "She counted seventeen boxes twice, then wrote the number on the back of an envelope.",
  "Nobody in the village could remember when the bridge had last been painted.",
  "A careful engineer measures first, changes one thing, and measures again.",
  "“We'll need more rope,” he said, although there wasn't any left to buy.",
  "In 1987 the company moved its workshops to a valley forty kilometres further north.",
  "Rain fell on the tin roof all afternoon while the children invented a new game.",
  "If the temperature drops below freezing, close the upper valve and call the station.",
  "Her grandmother's recipe asked for patience, two lemons and an unreasonable amount of butter.",
  "Several questions remain open: who paid for it, who knew, and why did they wait so long?",
  "The library keeps its oldest maps in a cool, dark room behind the reading hall.",
  "They walked slowly through the market, comparing prices and tasting every kind of cheese.",
];

/** Megabytes of English UTF-8 encoded per second; the median over `runs`. */
export function measureTokenizer(tokenizer: Tokenizer, runs: number): number {
  const sentenceBytes = TEXT_BYTES / SENTENCES[0]!.length;
  const order = randomIntegers(1, SENTENCES.length, Math.ceil(sentenceBytes));
  const text = order.map((index) => SENTENCES[index]).join(" ");
  const bytes = new TextEncoder().encode(text).length;
  const rates: number[] = [];
  for (let run = -1; run < runs; run++) {
    const began = performance.now();
    tokenizer.encode(text);
    if (run >= 0) rates.push(bytes / 1e6 / ((performance.now() - began) / 1000));
  }
  return median(rates);
}

/** Microseconds of one draw with temperature and top-p; the median over `runs` batches of draws. */
export function measureSampler(runs: number): number {
  const sampler = new Sampler(SAMPLER_LOGITS);
  const logits = normalLogits(SAMPLER_LOGITS);
  const parameters = { temperature: 0.6, topK: 0, typicalP: 1, topP: 0.95, minP: 0, seed: 1 };
  const times: number[] = [];
  for (let run = -1; run < runs; run++) {
    const began = performance.now();
    for (let draw = 0; draw < SAMPLER_DRAWS; draw++) sampler.sample(logits, parameters, draw);
    if (run >= 0) times.push((performance.now() - began) * 1000 / SAMPLER_DRAWS);
  }
  sampler.free();
  return median(times);
}

/** Sums of twelve uniform numbers: variance 1 and mean 6 before they are shifted and scaled. */
function normalLogits(count: number): Float32Array {
  const terms = randomIntegers(1, LOGIT_STEPS, count * LOGIT_TERMS);
  return Float32Array.from({ length: count }, (_, index) => {
    let sum = 0;
    for (let term = 0; term < LOGIT_TERMS; term++) sum += terms[index * LOGIT_TERMS + term]!;
    return (sum / LOGIT_STEPS - LOGIT_TERMS / 2) * LOGIT_DEVIATION;
  });
}
