/** Scoring through completions, as evaluation harnesses do it, against the oracle. */
import assert from "node:assert/strict";
import OpenAI from "openai";
import { startServer } from "./running.ts";

/** One text: log-probabilities of its tokens but the first, and whether each was the best. */
interface ScoredText {
  readonly text: string;
  readonly logprobs: readonly number[];
  readonly best: readonly (0 | 1)[];
}

const fixture = new URL("./fixtures/text_logprobs.json", import.meta.url);
const TEXTS: readonly ScoredText[] = JSON.parse(await Deno.readTextFile(fixture));
/** Of a text's summed log-probabilities, nats a token. */
const LARGEST = 1e-2;

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

Deno.test({
  name: "scoring: the log-probabilities of 50 texts are the oracle's",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    const server = await startServer({ device: "cpu" });
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    let largest = 0;
    try {
      assert.equal(TEXTS.length, 50);
      const answer = await client.completions.create({
        model: "kedge-tiny",
        prompt: TEXTS.map(({ text }) => text),
        max_tokens: 0,
        echo: true,
        logprobs: 1,
      });
      for (const [index, { text, logprobs: wanted, best }] of TEXTS.entries()) {
        const choice = answer.choices[index]!;
        assert.deepEqual([choice.index, choice.text], [index, text]);
        const { token_logprobs, top_logprobs } = choice.logprobs!;
        assert.equal(token_logprobs![0], null);
        const found = token_logprobs!.slice(1);
        assert.equal(found.length, wanted.length);
        const off = Math.abs(sum(found) - sum(wanted)) / wanted.length;
        largest = Math.max(largest, off);
        assert.ok(off <= LARGEST, `"${text}" is off by ${off} a token`);
        for (const [at, isBest] of best.entries()) {
          // The token itself is listed beside the best one.
          const isFound = found[at]! >= Math.max(...Object.values(top_logprobs![at + 1]!));
          assert.equal(Number(isFound), isBest, `"${text}", token ${at + 1}`);
        }
      }
    } finally {
      await server.stop();
    }
    console.log(`summed log-probabilities are off by at most ${largest.toExponential(1)} a token`);
  },
});
