/** What a request must be before it is looked at: sizes, and where it comes from. */
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { PermissionError } from "../errors.ts";
import { MAX_HEADER_BYTES, MAX_URL_CHARACTERS } from "../limits.ts";
import { HeaderSizeError, UrlLengthError } from "./errors.ts";

/** Bytes of one header beside its name and value: colon, space and line end. */
const HEADER_EXTRA_BYTES = 4;

/** 414 and 431. Deno has read the headers by then: it refuses by itself what is far larger. */
export function limitHead(): MiddlewareHandler {
  return async function limitHead(context, next) {
    const { url, headers } = context.req.raw;
    if (url.length > MAX_URL_CHARACTERS) {
      throw new UrlLengthError(
        `read URL: wanted at most ${MAX_URL_CHARACTERS} characters, found ${url.length}`,
      );
    }
    let bytes = 0;
    // Header values are byte strings: a character is a byte.
    for (const [name, value] of headers) bytes += name.length + value.length + HEADER_EXTRA_BYTES;
    if (bytes > MAX_HEADER_BYTES) {
      throw new HeaderSizeError(
        `read headers: wanted at most ${MAX_HEADER_BYTES} bytes, found ${bytes}`,
      );
    }
    await next();
  };
}

/** Names by which this machine's own programs reach a loopback address. */
const LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"];

/** The names that `guardOrigin` lets in at a server bound to the loopback address `bound`. */
export function loopbackNames(bound: readonly string[]): ReadonlySet<string> {
  return new Set([...LOOPBACK_NAMES, ...bound.map(hostInUrl)]);
}

/** A host as a URL has it: lower case, IPv6 in brackets. */
export function hostInUrl(host: string): string {
  return host.includes(":") ? `[${host.toLowerCase()}]` : host.toLowerCase();
}

/** For an address as the system gives it. */
export function isLoopback(address: string): boolean {
  return address === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(address);
}

/**
 * Keeps web pages out of a server that is bound to loopback. A page whose name was made to resolve
 * to this machine (DNS rebinding) still sends that name as Host; other pages send theirs as Origin.
 */
export function guardOrigin(
  names: ReadonlySet<string>,
  allowedOrigins: readonly string[],
): MiddlewareHandler {
  return async function guardOrigin(context, next) {
    const { headers, url } = context.req.raw;
    // HTTP/1.0 has no Host, HTTP/2 has it in the URL alone.
    const host = headers.get("host");
    if ((host !== null && !names.has(withoutPort(host))) || !names.has(hostOfUrl(url))) {
      throw new PermissionError(
        'read header "host": wanted a name of this machine\'s loopback address, found another',
        null,
        "forbidden_host",
      );
    }
    const origin = headers.get("origin");
    if (origin !== null && !allowedOrigins.includes(origin) && !isLocalOrigin(origin, names)) {
      throw new PermissionError(
        'read header "origin": wanted this machine or one given with --allow-origin, ' +
          "found another",
        null,
        "forbidden_origin",
      );
    }
    await next();
  };
}

function isLocalOrigin(origin: string, names: ReadonlySet<string>): boolean {
  const host = /^https?:\/\/([^/]*)$/.exec(origin)?.[1];
  return host !== undefined && names.has(withoutPort(host));
}

function withoutPort(host: string): string {
  return host.replace(/:\d+$/, "").toLowerCase();
}

/** The host that a request's URL names, without its port; "" for a URL that is none. */
function hostOfUrl(url: string): string {
  return URL.parse(url)?.hostname ?? "";
}

/** How long browsers may remember an answer to a preflight. */
const PREFLIGHT_SECONDS = 600;

/**
 * CORS for exactly these origins. Others get no CORS header at all, and a preflight of theirs is a
 * request like any other.
 */
export function allowOrigins(origins: readonly string[]): MiddlewareHandler {
  const answer = cors({
    origin: [...origins],
    allowMethods: ["GET", "HEAD", "POST"],
    exposeHeaders: ["retry-after", "x-request-id"],
    maxAge: PREFLIGHT_SECONDS,
  });
  return function allowOrigins(context, next) {
    return origins.includes(context.req.header("origin") ?? "") ? answer(context, next) : next();
  };
}
