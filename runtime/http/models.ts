/** GET /v1/models and /v1/models/:id */
import type { ModelInfo } from "../engine/engine.ts";
import { NotFoundError } from "../errors.ts";
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
