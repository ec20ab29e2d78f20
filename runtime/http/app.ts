/** The HTTP application: which path is answered by what. Requests are never logged. */
import { type Context, Hono } from "hono";
import { NotFoundError } from "../errors.ts";
import { answerChat } from "./chat.ts";
import { answerCompletion } from "./completions.ts";
import { errorResponse, MethodError } from "./errors.ts";
import type { AppDependencies } from "./generation.ts";
import { showHealth, showWelcome } from "./health.ts";
import { listModels, showModel } from "./models.ts";
import { answerDetokenize, answerTokenize } from "./tokenize.ts";

export type { AppDependencies } from "./generation.ts";

/**
 * @example
 * ```ts
 * const app = createApp({ engine, tokenizer, generation });
 * Deno.serve({ port: 8080 }, app.fetch);
 * ```
 */
export function createApp(deps: AppDependencies): Hono {
  const app = new Hono();
  app.onError((error) => errorResponse(error));
  app.notFound(() => errorResponse(new NotFoundError("find route: wanted a known path")));

  type Handler = (context: Context) => Response | Promise<Response>;
  const get = (path: string, handler: Handler) => {
    app.get(path, handler);
    app.all(path, () => refuseMethod("GET, HEAD"));
  };
  const post = (path: string, handler: Handler) => {
    app.post(path, handler);
    app.all(path, () => refuseMethod("POST"));
  };

  get("/", () => showWelcome(deps));
  get("/health", () => showHealth(deps));
  get("/v1/models", () => listModels(deps));
  get("/v1/models/:id", (context) => showModel(deps, context.req.param("id") ?? ""));
  post("/v1/chat/completions", (context) => answerChat(deps, context.req.raw));
  post("/v1/completions", (context) => answerCompletion(deps, context.req.raw));
  post("/tokenize", (context) => answerTokenize(deps, context.req.raw));
  post("/detokenize", (context) => answerDetokenize(deps, context.req.raw));
  return app;
}

function refuseMethod(allowed: string): never {
  throw new MethodError(`answer request: wanted method ${allowed}, found another`, allowed);
}
