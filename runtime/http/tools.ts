/** What a request's tools change in its generation. */
import type { AnswerOptions } from "../chat/answer_stream.ts";
import {
  CALL_ARGUMENTS,
  CALL_BEGIN,
  CALL_END,
  callId,
  CALLS_BEGIN,
  CALLS_END,
} from "../chat/tool_calls.ts";
import { BANNED } from "../engine/penalties.ts";
import { RequestError } from "../errors.ts";
import type { GenerateRequest } from "../engine/engine.ts";
import type { Grammar } from "../../wasm/grammar.ts";
import type { Tokenizer } from "../../wasm/text.ts";
import type { JsonObject } from "./body.ts";
import { schemaExcess, schemaText } from "./grammar.ts";
import { isObject } from "../json_text.ts";
import type { ChatRequest } from "./schema.ts";

type ToolFields = Pick<ChatRequest, "tools" | "tool_choice" | "parallel_tool_calls">;

/** How the answer to a request is read. */
export function answerOptions({ tools, stop }: Pick<ChatRequest, "tools" | "stop">): AnswerOptions {
  const names = tools?.map((tool) => functionOf(tool).name) ?? [];
  return { stops: stop, tools: names.length > 0 ? names : null };
}

/**
 * The request held to its `tool_choice`: under "none" no call can begin; under "required", or with
 * a function's name, the answer is calls and nothing else, their arguments as the tools' schemas
 * have them. With `parallel_tool_calls: false` the first call's end is the answer's. Where a tool
 * is `strict`, a call that the model begins by itself is held to the same grammar from there on.
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
  const isParallel = parallel_tool_calls !== false;
  if (tool_choice === "required") {
    return { ...request, grammar: callGrammar(tools!.map(functionOf), isParallel) };
  }
  if (typeof tool_choice === "object" && tool_choice !== null) {
    const { name } = tool_choice.function;
    const named = tools!.map(functionOf).filter((each) => each.name === name);
    return { ...request, grammar: callGrammar(named, isParallel) };
  }
  const stopIds = isParallel ? request.stopIds : [...request.stopIds, ...idsOf([CALL_END])];
  const functions = tools!.map(functionOf);
  // A form that the whole answer must have leaves no room for calls.
  if (request.grammar !== null || !functions.some(({ strict }) => strict)) {
    return { ...request, stopIds };
  }
  // What is not strict has any object as its arguments.
  const held = functions.map(({ name, parameters, strict }) =>
    strict ? { name, parameters: parameters ?? null } : { name }
  );
  // Calls may also begin without a section around them.
  const grammar = callGrammar(held, isParallel, true);
  return {
    ...request,
    stopIds,
    grammar: { ...grammar, startIds: idsOf([CALLS_BEGIN, CALL_BEGIN]) },
  };
}

/** A tool's function, as parseChatRequest has checked it. */
interface ToolFunction {
  readonly name: string;
  readonly parameters?: JsonObject | null;
  readonly strict?: boolean | null;
}

/** Throws RequestError for parameters that no grammar can be made of. */
function argumentsSchema({ name, parameters }: ToolFunction): string {
  const schema = parameters ?? { type: "object" };
  const excess = schemaExcess(schema);
  if (excess === null) return schemaText(schema);
  throw new RequestError(
    `read field "tools": wanted ${excess} in ${JSON.stringify(name)} to hold calls to it, ` +
      "found a larger one",
    "tools",
  );
}

function functionOf(tool: JsonObject): ToolFunction {
  return tool.function as unknown as ToolFunction;
}

/** Calls of some functions and nothing else, in llguidance's Lark; `isBare`: or no section. */
function callGrammar(
  functions: readonly ToolFunction[],
  isParallel: boolean,
  isBare = false,
): Grammar {
  const lines = functions.flatMap((each, index) => [
    `call${index}: ${CALL_BEGIN} ${JSON.stringify(callId(each.name, ""))} INDEX ` +
    `${CALL_ARGUMENTS} arguments${index} ${CALL_END}`,
    `arguments${index}: %json ${argumentsSchema(each)}`,
  ]);
  const call = functions.map((_, index) => `call${index}`).join(" | ");
  const calls = isParallel ? "call+" : "call";
  const source = [
    `start: ${CALLS_BEGIN} ${calls} ${CALLS_END}${isBare ? ` | ${calls}` : ""}`,
    `call: ${call}`,
    ...lines,
    "INDEX: /[0-9]{1,4}/",
  ].join("\n");
  return { kind: "lark", source };
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
