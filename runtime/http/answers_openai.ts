/**
 * What the OpenAI routes answer, for the API's document. Answers are checked against these in
 * tests; nothing is checked while serving.
 */
import { z } from "zod";
import { responseForm, responsesTool, responsesToolChoice } from "./responses_schema.ts";

export const count = z.int().min(0);
const seconds = z.int().min(0).describe("Seconds since 1970");
const seed = z.int().min(0).describe("What makes the same answer again");
const anyJson = z.record(z.string(), z.unknown());

export const errorAnswer = z.object({
  error: z.object({
    message: z.string().describe("Action: wanted this, found that"),
    type: z.string(),
    param: z.string().nullable().describe("The field at fault"),
    code: z.string().nullable(),
  }),
});

const usage = z.object({
  prompt_tokens: count,
  completion_tokens: count,
  total_tokens: count,
  prompt_tokens_details: z.object({ cached_tokens: count }),
});

const amount = z.number().min(0);
const timings = z.object({
  prompt_n: count,
  prompt_ms: amount,
  prompt_per_token_ms: amount,
  prompt_per_second: amount,
  predicted_n: count,
  predicted_ms: amount,
  predicted_per_token_ms: amount,
  predicted_per_second: amount,
  queued_ms: amount,
}).describe("llama-server's, of a single choice that no stop string ended");

const progress = z.object({ total: count, cache: count, processed: count, time_ms: count })
  .describe("While the prompt is computed, where return_progress asks for it");

const listedToken = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int().min(0).max(255)),
});
const tokenLogprob = listedToken.extend({ top_logprobs: z.array(listedToken) });
const chatLogprobs = z.object({ content: z.array(tokenLogprob), refusal: z.null() });

const toolCall = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

const chatReason = z.enum(["stop", "length", "tool_calls"]);

export const chatAnswer = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: seconds,
  model: z.string(),
  seed,
  choices: z.array(z.object({
    index: count,
    message: z.object({
      role: z.literal("assistant"),
      content: z.string().nullable(),
      refusal: z.null(),
      tool_calls: z.array(toolCall).optional(),
    }),
    logprobs: chatLogprobs.nullable(),
    finish_reason: chatReason,
  })),
  usage,
  timings: timings.optional(),
});

/** A call's first piece has everything, further ones more of its arguments. */
const callPiece = z.object({
  index: count,
  id: z.string().optional(),
  type: z.literal("function").optional(),
  function: z.object({ name: z.string().optional(), arguments: z.string() }),
});

export const chatChunk = z.object({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: seconds,
  model: z.string(),
  seed,
  choices: z.array(z.object({
    index: count,
    delta: z.object({
      role: z.literal("assistant").optional(),
      content: z.string().optional(),
      tool_calls: z.array(callPiece).optional(),
    }),
    logprobs: chatLogprobs.nullable(),
    finish_reason: chatReason.nullable(),
  })),
  usage: usage.nullable().optional().describe("In the last chunk, where include_usage asks for it"),
  timings: timings.optional(),
  prompt_progress: progress.optional(),
});

const legacyLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(count).describe("In code points"),
});

const completionHead = {
  id: z.string(),
  object: z.literal("text_completion"),
  created: seconds,
  model: z.string(),
  seed,
};
const completionChoice = z.object({
  index: count,
  text: z.string(),
  logprobs: legacyLogprobs.nullable(),
  finish_reason: z.enum(["stop", "length"]),
});

export const completionAnswer = z.object({
  ...completionHead,
  choices: z.array(completionChoice),
  usage,
  timings: timings.optional(),
});

export const completionChunk = z.object({
  ...completionHead,
  choices: z.array(
    completionChoice.extend({ finish_reason: z.enum(["stop", "length"]).nullable() }),
  ),
  usage: chatChunk.shape.usage,
  timings: timings.optional(),
  prompt_progress: progress.optional(),
});

export const modelAnswer = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: seconds,
  owned_by: z.literal("kedge"),
  max_model_len: count.describe("Tokens of prompt and completion together"),
  meta: z.object({ n_vocab: count, n_ctx_train: count, n_params: count, size: count }),
});

export const modelsAnswer = z.object({ object: z.literal("list"), data: z.array(modelAnswer) });

const status = z.enum(["in_progress", "completed", "incomplete"]);
const textPart = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.unknown()).max(0),
  logprobs: z.array(tokenLogprob),
});
const outputItem = z.union([
  z.object({
    type: z.literal("message"),
    id: z.string(),
    role: z.literal("assistant"),
    status,
    content: z.array(textPart),
  }),
  z.object({
    type: z.literal("function_call"),
    id: z.string(),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    status,
  }),
]);

export const responseAnswer = z.object({
  id: z.string(),
  object: z.literal("response"),
  created_at: seconds,
  status,
  completed_at: seconds.nullable(),
  error: z.null(),
  incomplete_details: z.object({ reason: z.literal("max_output_tokens") }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: count.nullable(),
  metadata: anyJson,
  model: z.string(),
  output: z.array(outputItem),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.null(),
  store: z.literal(false),
  temperature: z.number(),
  text: z.object({ format: responseForm }),
  tool_choice: responsesToolChoice,
  tools: z.array(responsesTool),
  top_p: z.number(),
  truncation: z.literal("disabled"),
  usage: z.object({
    input_tokens: count,
    input_tokens_details: z.object({ cached_tokens: count }),
    output_tokens: count,
    output_tokens_details: z.object({ reasoning_tokens: count }),
    total_tokens: count,
  }).nullable(),
});

const numbered = { sequence_number: count };
const ofItem = { ...numbered, item_id: z.string(), output_index: count };
const ofPart = { ...ofItem, content_index: count };

const wholeResponse = (name: string) =>
  z.object({ type: z.literal(`response.${name}`), response: responseAnswer, ...numbered });
const itemEvent = (name: string) =>
  z.object({
    type: z.literal(`response.output_item.${name}`),
    output_index: count,
    item: outputItem,
    ...numbered,
  });
const partEvent = (name: string) =>
  z.object({ type: z.literal(`response.content_part.${name}`), part: textPart, ...ofPart });

export const responseEvent = z.union([
  ...["created", "in_progress", "completed", "incomplete"].map(wholeResponse),
  ...["added", "done"].map(itemEvent),
  ...["added", "done"].map(partEvent),
  z.object({
    type: z.literal("response.output_text.delta"),
    delta: z.string(),
    logprobs: z.array(tokenLogprob),
    ...ofPart,
  }),
  z.object({
    type: z.literal("response.output_text.done"),
    text: z.string(),
    logprobs: z.array(tokenLogprob),
    ...ofPart,
  }),
  z.object({
    type: z.literal("response.function_call_arguments.delta"),
    delta: z.string(),
    ...ofItem,
  }),
  z.object({
    type: z.literal("response.function_call_arguments.done"),
    name: z.string(),
    arguments: z.string(),
    ...ofItem,
  }),
  z.object({
    type: z.literal("error"),
    message: z.string(),
    code: z.string().nullable(),
    param: z.string().nullable(),
    ...errorAnswer.shape,
    ...numbered,
  }),
]);
