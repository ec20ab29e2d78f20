/** What a request's tools change in its generation. */
import type { AnswerOptions } from "../chat/answer_stream.ts";
import { CALL_BEGIN, CALL_END, CALLS_BEGIN } from "../chat/tool_calls.ts";
import { BANNED } from "../engine/penalties.ts";
import type { GenerateRequest } from "../engine/engine.ts";
import type { Tokenizer } from "../../wasm/text.ts";
import type { JsonObject } from "./body.ts";
import { isObject } from "./fields.ts";
import type { ChatRequest } from "./schema.ts";

type ToolFields = Pick<ChatRequest, "tools" | "tool_choice" | "parallel_tool_calls">;

/** How the answer to a request is read. */
export function answerOptions({ tools, stop }: Pick<ChatRequest, "tools" | "stop">): AnswerOptions {
  const names = tools?.map((tool) => (tool.function as { readonly name: string }).name) ?? [];
  return { stops: stop, tools: names.length > 0 ? names : null };
}

/**
 * The request held to `tool_choice: "none"`, under which no call can begin, and to
 * `parallel_tool_calls: false`, under which the first call's end is the answer's.
 */
export function limitCalls(
  request: GenerateRequest,
  { tools, tool_choice, parallel_tool_calls }: ToolFields,
  tokenizer: Tokenizer,
): GenerateRequest {
  if ((tools?.length ?? 0) === 0) return request;
  const idsOf = (markers: readonly string[]) =>
    markers.map((marker) => tokenizer.specialId(marker)).filter((id) => id !== null);
  if (tool_choice === "none") {
    const banned = idsOf([CALLS_BEGIN, CALL_BEGIN]);
    const { logitBias } = request.sampling;
    const others = logitBias.filter(([id]) => !banned.includes(id));
    const bans = banned.map((id): [number, number] => [id, BANNED]);
    return { ...request, sampling: { ...request.sampling, logitBias: [...others, ...bans] } };
  }
  if (parallel_tool_calls === false) {
    return { ...request, stopIds: [...request.stopIds, ...idsOf([CALL_END])] };
  }
  return request;
}

/** Arguments that are no JSON object are handed on as they are, under a name of their own. */
export function parsedArguments(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Not JSON: the client gets to see the text.
  }
  return { _raw: text };
}
