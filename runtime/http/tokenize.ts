/**
 * POST /tokenize, /detokenize and /apply-template, in vLLM's and in llama-server's spelling at
 * once.
 */
import { z } from "zod";
import { encodeSegments, encodeText } from "../chat/encode.ts";
import { RequestError } from "../errors.ts";
import { BODY_READ_MS, SLICE_ITEMS } from "../limits.ts";
import { Slices } from "../slices.ts";
import { StreamDecoder, type Tokenizer } from "../../wasm/text.ts";
import { type JsonObject, readJsonObject } from "./body.ts";
import { anyText, flag, optional, parseFields, shownAs } from "./fields.ts";
import { renderPrompt } from "./conversation.ts";
import { type AppDependencies, checkModel } from "./generation.ts";
import { answerJson } from "./json_answer.ts";
import { tokenPiece, tokenText } from "./logprobs.ts";
import { conversationShape, idList, parseConversation } from "./schema.ts";

const templateSchema = z.object({ model: optional(anyText) });

/** The whole body, for the API's document. */
export const templateBody = z.object({ ...conversationShape, ...templateSchema.shape });

const tokenizeSchema = z.object({
  model: optional(anyText),
  /** vLLM's name of the text, llama-server's name of it, and vLLM's other form. */
  prompt: optional(anyText),
  content: optional(anyText),
  /** Checked by parseConversation, as `tools` is. */
  messages: shownAs(z.unknown().optional(), optional(conversationShape.messages)),
  add_generation_prompt: optional(flag),
  /** Special strings in the text become special tokens. */
  parse_special: optional(flag),
  /** llama-server: `tokens` lists id and text. */
  with_pieces: optional(flag),
  /** vLLM: `token_strs` lists the texts. */
  return_token_strs: optional(flag),
}).superRefine((value, context) => {
  const given = [value.prompt, value.content, value.messages].filter((each) => each != null);
  if (given.length === 1) return;
  const message = 'exactly one of "prompt", "content", "messages"';
  context.addIssue({ code: "custom", path: ["prompt"], message, input: value });
});

/** The whole bodies, for the API's document. */
export const tokenizeBody = z.object({
  ...tokenizeSchema.shape,
  tools: conversationShape.tools,
});
export function detokenizeBody(vocabularySize: number) {
  return z.object({ model: optional(anyText), tokens: idList(vocabularySize) });
}

export async function answerTokenize(deps: AppDependencies, http: Request): Promise<Response> {
  const { engine, tokenizer } = deps;
  const slices = new Slices();
  const body = await readJsonObject(http, BODY_READ_MS, slices);
  const fields = parseFields(tokenizeSchema, body);
  checkModel(engine, fields.model);
  const ids = await promptIds(deps, body, fields, slices);
  return await answerJson({
    tokens: fields.with_pieces
      ? await mapInSlices(ids, (id) => ({ id, piece: pieceOf(tokenizer, id) }), slices)
      : ids,
    count: ids.length,
    max_model_len: engine.model.contextLength,
    ...(fields.return_token_strs && {
      token_strs: await mapInSlices(ids, (id) => tokenText(tokenizer, id), slices),
    }),
  }, slices);
}

/** POST /apply-template: the prompt that a conversation becomes, as llama-server answers it. */
export async function answerTemplate(deps: AppDependencies, http: Request): Promise<Response> {
  const slices = new Slices();
  const body = await readJsonObject(http, undefined, slices);
  const { messages, tools } = await parseConversation(body, slices);
  if (messages === null) {
    throw new RequestError(
      'read field "messages": wanted a list of messages, found none',
      "messages",
    );
  }
  checkModel(deps.engine, parseFields(templateSchema, body).model);
  const segments = await renderPrompt(deps, messages, tools, "answer", slices);
  return await answerJson({ prompt: segments.map(({ text }) => text).join("") }, slices);
}

async function promptIds(
  deps: AppDependencies,
  body: JsonObject,
  fields: z.output<typeof tokenizeSchema>,
  slices: Slices,
): Promise<Uint32Array> {
  const { tokenizer } = deps;
  const { messages, tools } = await parseConversation(body, slices);
  if (messages === null) {
    const text = fields.prompt ?? fields.content ?? "";
    return await encodeText(tokenizer, text, fields.parse_special ?? false, slices);
  }
  const end = fields.add_generation_prompt ?? true ? "answer" : "nothing";
  return await encodeSegments(
    tokenizer,
    await renderPrompt(deps, messages, tools, end, slices),
    slices,
  );
}

/** As llama-server shows a token: its text, else its bytes. */
function pieceOf(tokenizer: Tokenizer, id: number): string | number[] {
  const piece = tokenPiece(tokenizer, id);
  return typeof piece === "string" ? piece : Array.from(piece);
}

/** What `action` makes of each id; asked once for ids that come again, as most do. */
async function mapInSlices<T>(
  ids: Uint32Array,
  action: (id: number) => T,
  slices: Slices,
): Promise<T[]> {
  const known = new Map<number, T>();
  const results: T[] = [];
  for (const id of ids) {
    let result = known.get(id);
    if (result === undefined) known.set(id, result = action(id));
    results.push(result);
    if (results.length % SLICE_ITEMS === 0) await slices.giveWay();
  }
  return results;
}

export async function answerDetokenize(deps: AppDependencies, http: Request): Promise<Response> {
  const { engine, tokenizer } = deps;
  const slices = new Slices();
  const schema = detokenizeBody(engine.model.vocabularySize);
  const fields = parseFields(schema, await readJsonObject(http, BODY_READ_MS, slices));
  checkModel(engine, fields.model);
  const decoder = new StreamDecoder(tokenizer, false);
  try {
    const texts: string[] = [];
    for (const [at, id] of fields.tokens.entries()) {
      texts.push(decoder.push(id));
      if (at % SLICE_ITEMS === 0) await slices.giveWay();
    }
    const text = texts.join("") + decoder.flush();
    return await answerJson({ prompt: text, content: text }, slices);
  } finally {
    decoder.free();
  }
}
