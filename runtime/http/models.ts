/** GET /v1/models and /v1/models/:id, and what no model here can do. */
import type { ModelInfo } from "../engine/engine.ts";
import { NotFoundError, UnsupportedError } from "../errors.ts";
import type { AppDependencies } from "./generation.ts";

export function listModels({ engine }: AppDependencies): Response {
  return Response.json({ object: "list", data: [modelObject(engine.model)] });
}

export function showModel({ engine }: AppDependencies, id: string): Response {
  if (id !== engine.model.id) {
    throw new NotFoundError(
      `find model: wanted "${engine.model.id}", found another name`,
      "model",
      "model_not_found",
    );
  }
  return Response.json(modelObject(engine.model));
}

/** Hidden states of a model that was trained to write are no embeddings to compare texts by. */
export function refuseEmbeddings(): Promise<Response> {
  throw new UnsupportedError(
    "make embeddings: wanted a model that was trained for them, found one that writes text",
    null,
    "unsupported_model",
  );
}

/** OpenAI's keys, vLLM's `max_model_len` and llama-server's `meta`. */
function modelObject(model: ModelInfo) {
  return {
    id: model.id,
    object: "model",
    created: model.created,
    owned_by: "kedge",
    max_model_len: model.contextLength,
    meta: {
      n_vocab: model.vocabularySize,
      n_ctx_train: model.contextLength,
      n_params: model.parameterCount,
      size: model.weightBytes,
    },
  };
}
