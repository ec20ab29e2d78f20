/** What all other routes answer, for the API's document. Tests check answers against it. */
import { z } from "zod";
import { count } from "./answers_openai.ts";

const anyJson = z.record(z.string(), z.unknown());

export const messagesErrorAnswer = z.object({
  type: z.literal("error"),
  error: z.object({ type: z.string(), message: z.string() }),
});

export const ollamaErrorAnswer = z.object({ error: z.string() });

// Anthropic's.

const messagesUsage = z.object({
  input_tokens: count,
  output_tokens: count,
  cache_creation_input_tokens: count,
  cache_read_input_tokens: count,
});
const stopReason = z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]).nullable();
const block = z.union([
  z.object({ type: z.literal("text"), text: z.string() }),
  z.object({ type: z.literal("tool_use"), id: z.string(), name: z.string(), input: anyJson }),
]);

export const messagesAnswer = z.object({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  stop_reason: stopReason,
  stop_sequence: z.string().nullable(),
  usage: messagesUsage,
  content: z.array(block),
});

export const messagesEvent = z.union([
  z.object({ type: z.literal("message_start"), message: messagesAnswer }),
  z.object({ type: z.literal("content_block_start"), index: count, content_block: block }),
  z.object({
    type: z.literal("content_block_delta"),
    index: count,
    delta: z.union([
      z.object({ type: z.literal("text_delta"), text: z.string() }),
      z.object({ type: z.literal("input_json_delta"), partial_json: z.string() }),
    ]),
  }),
  z.object({ type: z.literal("content_block_stop"), index: count }),
  z.object({
    type: z.literal("message_delta"),
    delta: z.object({ stop_reason: stopReason, stop_sequence: z.string().nullable() }),
    usage: messagesUsage,
  }),
  z.object({ type: z.literal("message_stop") }),
  z.object({ type: z.literal("ping") }),
  messagesErrorAnswer,
]);

export const countTokensAnswer = z.object({ input_tokens: count });

// Ollama's.

const lineFields = {
  model: z.string(),
  created_at: z.string(),
  done: z.boolean(),
  done_reason: z.enum(["stop", "length", "load"]).optional(),
  total_duration: count.optional().describe("Nanoseconds, as all durations are"),
  load_duration: count.optional(),
  prompt_eval_count: count.optional(),
  prompt_eval_duration: count.optional(),
  eval_count: count.optional(),
  eval_duration: count.optional(),
};

export const ollamaChatAnswer = z.object({
  ...lineFields,
  message: z.object({
    role: z.literal("assistant"),
    content: z.string(),
    tool_calls: z.array(
      z.object({ function: z.object({ name: z.string(), arguments: anyJson }) }),
    ).optional(),
  }),
});

export const ollamaGenerateAnswer = z.object({ ...lineFields, response: z.string() });

const ollamaModel = z.object({
  name: z.string(),
  model: z.string(),
  modified_at: z.string(),
  size: count,
  digest: z.literal(""),
  details: z.object({
    format: z.string(),
    family: z.string(),
    families: z.array(z.string()),
    parameter_size: z.string(),
    quantization_level: z.string(),
  }),
});

export const ollamaTagsAnswer = z.object({ models: z.array(ollamaModel) });

export const ollamaPsAnswer = z.object({
  models: z.array(ollamaModel.extend({ size_vram: count, context_length: count })),
});

export const ollamaShowAnswer = ollamaModel.extend({
  capabilities: z.array(z.string()),
  model_info: anyJson,
  modelfile: z.string(),
  parameters: z.string(),
  template: z.string(),
});

export const ollamaVersionAnswer = z.object({ version: z.string() });

// The server's own, and llama-server's.

export const stateAnswer = z.object({
  status: z.enum(["ready", "recovering", "draining", "failed"]),
});

export const healthAnswer = z.object({ status: z.literal("ok") });

export const unhealthyAnswer = z.object({
  error: z.object({
    code: z.literal(503),
    message: z.string(),
    type: z.literal("unavailable_error"),
  }),
});

export const propsAnswer = z.object({
  default_generation_settings: z.object({
    n_ctx: count,
    params: z.object({
      temperature: z.number(),
      top_k: z.int(),
      top_p: z.number(),
      min_p: z.number(),
    }),
  }),
  total_slots: count,
  model_alias: z.string(),
  modalities: z.object({ vision: z.literal(false), audio: z.literal(false) }),
  device: z.string(),
  device_description: z.string(),
});

export const tokenizeAnswer = z.object({
  tokens: z.union([
    z.array(count),
    z.array(
      z.object({
        id: count,
        piece: z.union([z.string(), z.array(z.int().min(0).max(255))]),
      }),
    ),
  ]),
  count,
  max_model_len: count,
  token_strs: z.array(z.string()).optional(),
});

export const detokenizeAnswer = z.object({ prompt: z.string(), content: z.string() });

export const templateAnswer = z.object({ prompt: z.string() });
