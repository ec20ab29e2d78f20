/** Who may come in: API keys, and whose request it is. */
import type { MiddlewareHandler } from "hono";
import type { OwnerLimits } from "../engine/engine.ts";
import { AuthenticationError, PermissionError } from "../errors.ts";
import { allows } from "../keys/api_key.ts";
import type { KeyRing } from "../keys/key_ring.ts";
import type { Scope } from "../keys/scope.ts";

export interface Owner {
  /** The key's name; "" where no keys are asked for. */
  readonly name: string;
  readonly limits: OwnerLimits;
}

/** Where no keys are asked for, and on the command line. */
export const NOBODY: Owner = { name: "", limits: { requests: null } };

const owners = new WeakMap<Request, Owner>();

/** Whose request it is. NOBODY before `authenticate` has let it in. */
export function ownerOf(request: Request): Owner {
  return owners.get(request) ?? NOBODY;
}

/** Answered without a key, for load balancers and supervisors. They tell nothing but a state. */
export const PUBLIC_PATHS: ReadonlySet<string> = new Set(["/health", "/livez", "/readyz"]);

/** Every path that is not named here needs "infer", also those that do not exist. */
const SCOPE_OF_PATH: Readonly<Record<string, Scope>> = { "/metrics": "metrics" };

/**
 * Refuses whoever has no key of the path's scope, before anything else is found out about the
 * request: unknown paths and wrong methods look like all others.
 */
export function authenticate(keys: KeyRing): MiddlewareHandler {
  return async function authenticate(context, next) {
    const { raw, path } = context.req;
    if (!PUBLIC_PATHS.has(path)) {
      const key = keys.find(presentedKey(raw.headers));
      if (key === null) {
        throw new AuthenticationError(
          'read API key: wanted a known one as "authorization: Bearer KEY" or "x-api-key: KEY", ' +
            "found none",
          null,
          "invalid_api_key",
        );
      }
      owners.set(raw, { name: key.name, limits: key.limits });
      const scope = Object.hasOwn(SCOPE_OF_PATH, path) ? SCOPE_OF_PATH[path]! : "infer";
      if (!allows(key, scope)) {
        throw new PermissionError(
          `read API key: wanted one of scope "${scope}", found another`,
          null,
          "insufficient_scope",
        );
      }
    }
    await next();
  };
}

/** "" when there is none, which is no key's text. */
function presentedKey(headers: Headers): string {
  const bearer = /^bearer +([^ ]+) *$/i.exec(headers.get("authorization") ?? "");
  return bearer?.[1] ?? headers.get("x-api-key") ?? "";
}
