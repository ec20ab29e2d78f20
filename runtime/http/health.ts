/** GET /health, /livez, /readyz and / */
import type { Engine } from "../engine/engine.ts";
import type { AppDependencies } from "./generation.ts";

/** As llama-server: 200 while requests are taken, else 503 with an error of its own shape. */
export function showHealth({ engine }: AppDependencies): Response {
  if (isReady(engine)) return Response.json({ status: "ok" });
  const message = `The engine is ${stateOf(engine)}`;
  const error = { code: 503, message, type: "unavailable_error" };
  return Response.json({ error }, { status: 503 });
}

/** 503 asks for another process: only an engine that has failed for good can't help itself. */
export function showLife({ engine }: AppDependencies): Response {
  const state = stateOf(engine);
  return Response.json({ status: state }, { status: state === "failed" ? 503 : 200 });
}

/** 503 asks for requests to be sent elsewhere. */
export function showReadiness({ engine }: AppDependencies): Response {
  return Response.json({ status: stateOf(engine) }, { status: isReady(engine) ? 200 : 503 });
}

export function showWelcome({ engine }: AppDependencies): Response {
  const { id, device } = engine.model;
  return new Response(
    `Kedge serves "${id}" on device "${device}". OpenAI clients: base URL + /v1\n`,
  );
}

function isReady(engine: Engine): boolean {
  return stateOf(engine) === "ready";
}

function stateOf(engine: Engine): Engine["state"] {
  return engine.failure === null ? engine.state : "failed";
}
