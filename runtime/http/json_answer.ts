/** Answers that may be long, as JSON. */
import { COMPACT_JSON, JsonWriter } from "../chat/json_writer.ts";
import { ANSWER_PIECE_CHARACTERS, SLICE_ITEMS } from "../limits.ts";
import type { Slices } from "../slices.ts";

/** Levels down to the items of the longest lists: answer, choices, choice, logprobs, tokens. */
const LEVELS = 5;

const HEADERS = { "content-type": "application/json" };

/** `value` as Response.json would answer, written in slices; a long one as it is sent. */
export async function answerJson(value: unknown, slices: Slices): Promise<Response> {
  const writer = new JsonWriter(value, COMPACT_JSON, LEVELS);
  if (await writePiece(writer, slices)) return new Response(writer.take(), { headers: HEADERS });
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const isDone = await writePiece(writer, slices);
      controller.enqueue(encoder.encode(writer.take()));
      if (isDone) controller.close();
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: HEADERS });
}

/** Writes until there is a piece to send; true when nothing is left to write. */
async function writePiece(writer: JsonWriter, slices: Slices): Promise<boolean> {
  while (writer.length < ANSWER_PIECE_CHARACTERS) {
    if (writer.step(SLICE_ITEMS)) return true;
    await slices.giveWay();
  }
  return writer.step(0);
}
