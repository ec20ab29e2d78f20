/** From a chat request's body to the engine's: what all dialects of a conversation share. */
import type { AnswerOptions } from "../chat/answer_stream.ts";
import { encodeSegments } from "../chat/encode.ts";
import {
  type ChatMessage,
  type PromptEnd,
  renderChatInSlices,
  type Segment,
} from "../chat/template.ts";
import type { GenerateRequest } from "../engine/engine.ts";
import type { Slices } from "../slices.ts";
import type { JsonObject } from "./body.ts";
import { type AppDependencies, checkModel, planGeneration } from "./generation.ts";
import { estimateTokens, type Lifetime } from "./lifetime.ts";
import { type ChatRequest, parseChatRequest } from "./schema.ts";
import { grammarOf } from "./grammar.ts";
import { answerOptions, limitCalls } from "./tools.ts";

/** A conversation, ready to be answered. */
export interface Conversation {
  readonly fields: ChatRequest;
  readonly request: GenerateRequest;
  readonly options: AnswerOptions;
}

/**
 * Checks the body of a chat request, encodes its prompt and plans its generation. `rawPrompt`: a
 * text to go on with in place of the conversation. Throws RequestError, NotFoundError,
 * OverloadedError.
 */
export async function readConversation(
  deps: AppDependencies,
  life: Lifetime,
  body: JsonObject,
  rawPrompt: string | null = null,
): Promise<Conversation> {
  const { fields, promptIds } = await encodeConversation(deps, life, body, rawPrompt);
  const wantedTokens = fields.max_completion_tokens ?? fields.max_tokens ?? null;
  const grammar = grammarOf(fields);
  const { owner } = life;
  const plan = planGeneration(deps, fields, promptIds, "messages", wantedTokens, grammar, owner);
  const request = {
    ...limitCalls(plan, fields, deps.tokenizer),
    logprobs: fields.logprobs ? fields.top_logprobs ?? 0 : null,
  };
  return { fields, request, options: answerOptions(fields) };
}

/** The same up to the prompt's tokens, of which there may be more than the context holds. */
export async function encodeConversation(
  deps: AppDependencies,
  life: Lifetime,
  body: JsonObject,
  rawPrompt: string | null = null,
): Promise<{ readonly fields: ChatRequest; readonly promptIds: Uint32Array }> {
  const { engine, tokenizer } = deps;
  const { slices } = life;
  const fields = await parseChatRequest(body, engine.model.vocabularySize, slices);
  checkModel(engine, fields.model);
  const segments = rawPrompt === null
    ? await renderPrompt(deps, fields.messages, fields.tools, endOf(fields), slices)
    : [{ text: rawPrompt, trusted: false }];
  const characters = segments.reduce((sum, { text }) => sum + text.length, 0);
  life.hold(Array(fields.n ?? 1).fill(estimateTokens(characters)));
  return { fields, promptIds: await encodeSegments(tokenizer, segments, slices) };
}

function endOf(fields: ChatRequest): PromptEnd {
  return fields.continue_final_message ? "rest" : "answer";
}

/** A conversation's prompt, by the operator's template where there is one. */
export function renderPrompt(
  { template }: AppDependencies,
  messages: readonly ChatMessage[],
  tools: readonly unknown[] | null,
  end: PromptEnd,
  slices: Slices,
): Promise<Segment[]> | Segment[] {
  if (template) return template.render(messages, tools, end);
  return renderChatInSlices(messages, tools, end, slices);
}
