/** Answers that may be long, as JSON. */
import { COMPACT_JSON, JsonWriter } from "../chat/json_writer.ts";
import { SLICE_ITEMS } from "../limits.ts";
import type { Slices } from "../slices.ts";

/** Levels down to the items of the longest lists: answer, choices, choice, logprobs, tokens. */
const LEVELS = 5;

/** `value` as Response.json would answer, written in slices. */
export async function answerJson(value: unknown, slices: Slices): Promise<Response> {
  const writer = new JsonWriter(value, COMPACT_JSON, LEVELS);
  while (!writer.step(SLICE_ITEMS)) await slices.giveWay();
  return new Response(writer.text, { headers: { "content-type": "application/json" } });
}
