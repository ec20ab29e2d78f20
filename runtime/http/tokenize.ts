/** POST /tokenize and /detokenize, in vLLM's and in llama-server's spelling at once. */
import { z } from "zod";
import { encodeSegments, encodeText } from "../chat/encode.ts";
import { renderChat } from "../chat/template.ts";
import { readJsonObject } from "./body.ts";
import { anyText, flag, optional, parseFields, wanted } from "./fields.ts";
import { type AppDependencies, checkModel } from "./generation.ts";
import { tokenText } from "./logprobs.ts";
import { idList, messagesField, toolsField } from "./schema.ts";

const tokenizeSchema = z.object({
  model: optional(anyText),
  /** vLLM's name of the text, llama-server's name of it, and vLLM's other form. */
  prompt: optional(anyText),
  content: optional(anyText),
  messages: optional(messagesField),
  tools: toolsField,
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

export async function answerTokenize(deps: AppDependencies, http: Request): Promise<Response> {
  const { engine, tokenizer } = deps;
  const fields = parseFields(tokenizeSchema, await readJsonObject(http));
  checkModel(engine, fields.model);
  const ids = fields.messages
    ? await encodeSegments(
      tokenizer,
      renderChat(fields.messages, fields.tools ?? null, fields.add_generation_prompt ?? true),
    )
    : await encodeText(
      tokenizer,
      fields.prompt ?? fields.content ?? "",
      fields.parse_special ?? false,
    );
  const list = Array.from(ids);
  return Response.json({
    tokens: fields.with_pieces ? list.map((id) => ({ id, piece: pieceOf(deps, id) })) : list,
    count: list.length,
    max_model_len: engine.model.contextLength,
    ...(fields.return_token_strs && { token_strs: list.map((id) => tokenText(tokenizer, id)) }),
  });
}

/** A token's text, or its bytes when they are not UTF-8 by themselves. */
function pieceOf({ tokenizer }: AppDependencies, id: number): string | number[] {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes);
  }
}

export async function answerDetokenize(deps: AppDependencies, http: Request): Promise<Response> {
  const schema = z.object({
    model: optional(anyText),
    tokens: idList(deps.engine.model.vocabularySize),
  }, wanted("an object"));
  const fields = parseFields(schema, await readJsonObject(http));
  checkModel(deps.engine, fields.model);
  const text = deps.tokenizer.decode(Uint32Array.from(fields.tokens));
  return Response.json({ prompt: text, content: text });
}
