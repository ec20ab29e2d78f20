/** GET /health and GET / */
import type { AppDependencies } from "./generation.ts";

/**
 * As llama-server: 200 while requests are taken, else 503. The app exists only once the model is
 * loaded, so what is left is an engine that has failed.
 */
export function showHealth({ engine }: AppDependencies): Response {
  if (engine.failure === null) return Response.json({ status: "ok" });
  const error = { code: 503, message: "The engine has failed", type: "unavailable_error" };
  return Response.json({ error }, { status: 503 });
}

export function showWelcome({ engine }: AppDependencies): Response {
  const { id, device } = engine.model;
  return new Response(
    `Kedge serves "${id}" on device "${device}". OpenAI clients: base URL + /v1\n`,
  );
}
