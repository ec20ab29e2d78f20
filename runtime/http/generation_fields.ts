/** The fields that the chat and the completions route share, checked. */
import { z } from "zod";
import * as limits from "../limits.ts";
import {
  anyText,
  flag,
  integerFrom,
  listFrom,
  numberFrom,
  optional,
  shownAs,
  textFrom,
  wanted,
} from "./fields.ts";
import { grammarFields } from "./grammar.ts";

const stopString = textFrom(1, limits.MAX_STOP_CHARACTERS)
  .refine((text) => text.isWellFormed(), wanted("a string without half characters"));

const stops = listFrom(stopString, 0, limits.MAX_STOPS);

/** A list where clients may also give its one item alone; parsed to a list. */
const parsedStops = z.unknown().optional().transform((value, context): readonly string[] => {
  const schema = typeof value === "string" ? stopString : stops;
  if (value === null || value === undefined) return [];
  const result = schema.safeParse(value);
  if (!result.success) {
    for (const { path, message } of result.error.issues) {
      context.addIssue({ code: "custom", path, message, input: value });
    }
    return z.NEVER;
  }
  return typeof result.data === "string" ? [result.data] : result.data;
});

const stop = shownAs(
  parsedStops.describe("Texts that end the answer, and are no part of it"),
  optional(z.union([stopString, stops])),
);

/**
 * `logit_bias` as OpenAI's object of ids and as llama-server's list of pairs, in which false bans a
 * token; parsed to pairs. Ids are checked against the vocabulary by `checkGeneration`.
 */
const parsedBiases = z.unknown().optional().transform(
  (value, context): readonly [number, number][] => {
    if (value === null || value === undefined) return [];
    const refuse = (message: string, path: PropertyKey[] = []) => {
      context.addIssue({ code: "custom", path, message, input: value });
      return z.NEVER;
    };
    const isList = Array.isArray(value);
    if (!isList && typeof value !== "object") return refuse("an object of token ids and biases");
    const pairs: [unknown, unknown][] = isList ? value : Object.entries(value);
    if (pairs.length > limits.MAX_LOGIT_BIASES) {
      return refuse(`at most ${limits.MAX_LOGIT_BIASES} token ids`);
    }
    const biases = new Map<number, number>();
    for (const [at, pair] of pairs.entries()) {
      if (!Array.isArray(pair) || pair.length !== 2) return refuse("a pair of id and bias", [at]);
      const id = isList ? pair[0] : wholeNumber(pair[0]);
      const bias = isList && pair[1] === false ? -limits.MAX_LOGIT_BIAS : pair[1];
      if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0) {
        // A key that is no id is any text of the client's.
        return isList ? refuse("a token id", [at]) : refuse("token ids as keys");
      }
      const path = [isList ? at : String(pair[0])];
      if (typeof bias !== "number" || !(Math.abs(bias) <= limits.MAX_LOGIT_BIAS)) {
        return refuse(`a bias from -${limits.MAX_LOGIT_BIAS} to ${limits.MAX_LOGIT_BIAS}`, path);
      }
      biases.set(id, bias);
    }
    return [...biases];
  },
);

const bias = numberFrom(-limits.MAX_LOGIT_BIAS, limits.MAX_LOGIT_BIAS);
const biasedId = integerFrom(0, limits.MAX_VOCABULARY_TOKENS - 1);
const logitBias = shownAs(
  parsedBiases.describe("Biases of token ids: an object, or pairs in which false bans a token"),
  optional(z.union([
    z.record(z.string().regex(/^[0-9]{1,7}$/), bias)
      .meta({ maxProperties: limits.MAX_LOGIT_BIASES }),
    listFrom(
      z.tuple([biasedId, z.union([bias, z.literal(false)])]),
      0,
      limits.MAX_LOGIT_BIASES,
    ),
  ])),
);

function wholeNumber(text: unknown): number {
  return typeof text === "string" && /^\d{1,10}$/.test(text) ? Number(text) : NaN;
}

const penalty = optional(numberFrom(-limits.MAX_PENALTY, limits.MAX_PENALTY));
const repetition = optional(
  numberFrom(limits.MIN_REPETITION_PENALTY, limits.MAX_REPETITION_PENALTY),
);

/** Fields of the chat and of the completions route. */
export const generationFields = {
  model: optional(anyText).describe("The name in /v1/models; another one is 404"),
  max_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS))
    .describe("Cut to what fits; 0 only reads the prompt"),
  temperature: optional(numberFrom(0, limits.MAX_TEMPERATURE))
    .describe("0 takes the most probable token"),
  top_p: optional(numberFrom(0, 1)),
  top_k: optional(integerFrom(-1, limits.MAX_TOP_K_TOKENS)).describe("-1 and 0 keep all tokens"),
  min_p: optional(numberFrom(0, 1)),
  typical_p: optional(numberFrom(0, 1)).describe("llama-server's name"),
  typical: optional(numberFrom(0, 1)).describe("TabbyAPI's name of typical_p"),
  frequency_penalty: penalty,
  presence_penalty: penalty,
  repetition_penalty: repetition.describe("vLLM's name"),
  repeat_penalty: repetition.describe("llama-server's name of repetition_penalty"),
  logit_bias: logitBias,
  return_progress: optional(flag)
    .describe("Chunks with prompt_progress while the prompt is computed; needs stream"),
  seed: optional(integerFrom(-1, Number.MAX_SAFE_INTEGER))
    .describe("-1 is random; the answer names the one that was used"),
  stop,
  stop_token_ids: optional(
    listFrom(integerFrom(0, limits.MAX_VOCABULARY_TOKENS - 1), 0, limits.MAX_STOP_TOKEN_IDS),
  ).describe("Ids that end the text, beside the model's own"),
  ignore_eos: optional(flag).describe("The model's own end ids do not end the text"),
  min_tokens: optional(integerFrom(0, limits.MAX_COMPLETION_TOKENS))
    .describe("No id that ends the text is chosen before this many tokens"),
  stream: optional(flag),
  stream_options: optional(z.object({ include_usage: optional(flag) }, wanted("an object"))),
  n: optional(integerFrom(1, limits.MAX_CHOICES)).describe("Answers to each prompt"),
  ...grammarFields,
};
