/** Follows each request to the end of its answer: an id, a line in the log, the HTTP metrics. */
import type { Context, MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import { logRequest } from "../log.ts";
import { ownerOf, PUBLIC_PATHS } from "./auth.ts";
import type { Usage } from "./measured_engine.ts";
import type { Metrics } from "./metrics.ts";

const usages = new WeakMap<Request, Usage>();

/** What the request has used so far; the engine that serves it writes here. */
export function usageOf(request: Request): Usage {
  let usage = usages.get(request);
  if (usage === undefined) {
    usage = { promptTokens: null, completionTokens: null };
    usages.set(request, usage);
  }
  return usage;
}

/** Asked for again and again by programs: of little interest in a log. */
const QUIET_PATHS: ReadonlySet<string> = new Set([...PUBLIC_PATHS, "/metrics"]);

/** Clients may send any word as method; a series for each would fill the memory. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** The first middleware: what those behind it refuse is observed too. */
export function observe(metrics: Metrics): MiddlewareHandler {
  return async function observe(context, next) {
    const began = performance.now();
    const id = `req_${crypto.randomUUID().replaceAll("-", "")}`;
    await next();
    context.res.headers.set("x-request-id", id);
    const { raw } = context.req;
    const route = routeOf(context);
    const method = METHODS.has(raw.method) ? raw.method : "other";
    const { status } = context.res;
    const finish = () => {
      const milliseconds = performance.now() - began;
      metrics.observeHttp(route, method, status, milliseconds / 1_000);
      const quiet = QUIET_PATHS.has(route) && status < 400;
      const { promptTokens, completionTokens } = usageOf(raw);
      logRequest({
        id,
        method,
        route,
        status,
        milliseconds: Math.round(milliseconds),
        promptTokens,
        completionTokens,
        key: ownerOf(raw).name,
      }, quiet);
    };
    // A stream goes on after its headers; without a server under it, nobody tells when it ends.
    const sent = (context.env as Partial<Deno.ServeHandlerInfo> | undefined)?.completed;
    if (sent === undefined) finish();
    else void sent.then(finish, finish);
  };
}

/** The pattern that the path matches, such as `/v1/models/:id`; "none" for an unknown path. */
function routeOf(context: Context): string {
  const route = matchedRoutes(context).findLast(({ path }) => path !== "/*");
  return route?.path ?? "none";
}
