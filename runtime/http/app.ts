/** The HTTP application: who is let in, and which path is answered by what. */
import { type Context, Hono } from "hono";
import { NotFoundError } from "../errors.ts";
import type { KeyRing } from "../keys/key_ring.ts";
import { authenticate } from "./auth.ts";
import { answerChat } from "./chat.ts";
import { answerCompletion } from "./completions.ts";
import { type ApiDocument, apiDocument } from "./document.ts";
import { errorResponse, type ErrorShape, MethodError } from "./errors.ts";
import type { AppDependencies } from "./generation.ts";
import { allowOrigins, guardOrigin, limitHead } from "./guards.ts";
import { showHealth, showLife, showReadiness, showWelcome } from "./health.ts";
import { MeasuredEngine } from "./measured_engine.ts";
import { Metrics, showMetrics } from "./metrics.ts";
import { listModels, refuseEmbeddings, showModel } from "./models.ts";
import { observe, usageOf } from "./observe.ts";
import {
  answerOllamaChat,
  answerOllamaGenerate,
  listOllamaModels,
  listOllamaRunning,
  ollamaError,
  showOllamaModel,
  showOllamaVersion,
} from "./ollama.ts";
import { answerMessages, countMessageTokens, messagesError } from "./messages.ts";
import { showPage } from "./page.ts";
import { showProps } from "./props.ts";
import { answerResponse } from "./responses.ts";
import { answerDetokenize, answerTemplate, answerTokenize } from "./tokenize.ts";

export type { AppDependencies } from "./generation.ts";

/** Who is let in. */
export interface DoorOptions {
  /** null: whoever reaches the server may use it. */
  readonly keys: KeyRing | null;
  /** Names that a server on a loopback address answers to; null: on another address, to any. */
  readonly names: ReadonlySet<string> | null;
  /** Origins of web pages that may use the server. */
  readonly origins: readonly string[];
}

const OPEN_DOOR: DoorOptions = { keys: null, names: null, origins: [] };

/**
 * @example
 * ```ts
 * const app = createApp({ engine, tokenizer, generation });
 * Deno.serve({ port: 8080 }, (request, info) => app.fetch(request, info));
 * ```
 */
export function createApp(deps: AppDependencies, door: DoorOptions = OPEN_DOOR): Hono {
  const app = new Hono();
  const metrics = new Metrics(deps.engine);
  app.onError((error, { req: { path } }) => errorResponse(error, shapeOf(path)));
  app.notFound(({ req: { path } }) =>
    errorResponse(new NotFoundError("find route: wanted a known path"), shapeOf(path))
  );

  app.use(observe(metrics));
  app.use(limitHead());
  if (door.names !== null) app.use(guardOrigin(door.names, door.origins));
  if (door.origins.length > 0) app.use(allowOrigins(door.origins));
  if (door.keys !== null) app.use(authenticate(door.keys));

  type Handler = (context: Context) => Response | Promise<Response>;
  const get = (path: string, handler: Handler) => {
    app.get(path, handler);
    app.all(path, () => refuseMethod("GET, HEAD"));
  };
  const post = (
    path: string,
    handler: (deps: AppDependencies, http: Request) => Promise<Response>,
  ) => {
    app.post(path, ({ req: { raw } }) => {
      const engine = new MeasuredEngine(deps.engine, metrics, usageOf(raw));
      return handler({ ...deps, engine }, raw);
    });
    app.all(path, () => refuseMethod("POST"));
  };
  // Made when it is first asked for: it takes 50 ms.
  let made: ApiDocument | null = null;
  const document = () => made ??= apiDocument(deps.engine.model.vocabularySize, door.keys !== null);

  get("/", () => showWelcome(deps));
  get("/health", () => showHealth(deps));
  get("/livez", () => showLife(deps));
  get("/readyz", () => showReadiness(deps));
  get("/metrics", (context) => showMetrics(metrics, deps.engine, context.req.query("experts")));
  get("/v1/models", () => listModels(deps));
  get("/v1/models/:id", (context) => showModel(deps, context.req.param("id") ?? ""));
  post("/v1/chat/completions", answerChat);
  post("/v1/completions", answerCompletion);
  post("/v1/embeddings", refuseEmbeddings);
  post("/v1/responses", answerResponse);
  post("/v1/messages", answerMessages);
  post("/v1/messages/count_tokens", countMessageTokens);
  get("/props", () => showProps(deps));
  post("/apply-template", answerTemplate);
  post("/tokenize", answerTokenize);
  post("/detokenize", answerDetokenize);

  get("/api/version", showOllamaVersion);
  get("/api/tags", () => listOllamaModels(deps));
  get("/api/ps", () => listOllamaRunning(deps));
  post("/api/show", showOllamaModel);
  post("/api/chat", answerOllamaChat);
  post("/api/generate", answerOllamaGenerate);

  get("/openapi.json", () => Response.json(document()));
  get("/docs", () => showPage(document()));
  return app;
}

/** Errors of all kinds as the clients of a path read them. */
function shapeOf(path: string): ErrorShape | null {
  if (path.startsWith("/api/")) return ollamaError;
  return /^\/v1\/messages(\/|$)/.test(path) ? messagesError : null;
}

function refuseMethod(allowed: string): never {
  throw new MethodError(`answer request: wanted method ${allowed}, found another`, allowed);
}
