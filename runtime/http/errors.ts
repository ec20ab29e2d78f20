/** Errors -> OpenAI error objects. */
import {
  AuthenticationError,
  KedgeError,
  OverloadedError,
  RequestError,
  TimeoutError,
} from "../errors.ts";
import { logFault } from "../log.ts";

/** A known path asked with a method it does not have. */
export class MethodError extends RequestError {
  override readonly status = 405;
  /** The `allow` header's value. */
  readonly allow: string;
  constructor(message: string, allow: string) {
    super(message);
    this.allow = allow;
  }
}

/** A body in an encoding that the server does not read. */
export class EncodingError extends RequestError {
  override readonly status = 415;
}

/** A URL over the length limit. */
export class UrlLengthError extends RequestError {
  override readonly status = 414;
}

/** Headers over the size limit. */
export class HeaderSizeError extends RequestError {
  override readonly status = 431;
}

/** The body of an error response, and the data of an error event. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/**
 * What the client gets to know. Errors that are not Kedge's own are mistakes of the server: the
 * client learns nothing of them, the operator where they happened. Their message may quote a
 * request, so it is logged nowhere.
 */
export function errorBody(error: unknown): ErrorBody {
  if (error instanceof KedgeError) {
    const { message, type, param, code } = error;
    return { error: { message, type, param, code } };
  }
  logFault(stackFrames(error));
  return {
    error: {
      message: "answer request: the server failed",
      type: "server_error",
      param: null,
      code: "internal_error",
    },
  };
}

/** The body of an error in another dialect. */
export type ErrorShape = (error: ErrorBody["error"], status: number) => unknown;

export function errorResponse(error: unknown, shape: ErrorShape | null = null): Response {
  const headers = new Headers();
  if (error instanceof MethodError) headers.set("allow", error.allow);
  if (error instanceof OverloadedError) {
    headers.set("retry-after", String(error.retryAfterSeconds));
  }
  if (error instanceof AuthenticationError) headers.set("www-authenticate", 'Bearer realm="kedge"');
  // The rest of the body is in the way of the next request: the client had better close.
  if (error instanceof TimeoutError) headers.set("connection", "close");
  const status = error instanceof KedgeError ? error.status : 500;
  const body = errorBody(error);
  return Response.json(shape?.(body.error, status) ?? body, { status, headers });
}

/** The stack without the message above it. */
function stackFrames(error: unknown): string {
  if (!(error instanceof Error)) return `  (a thrown ${typeof error})`;
  const frames = error.stack?.split("\n").filter((line) => line.startsWith("    at ")) ?? [];
  return [`  ${error.name}`, ...frames].join("\n");
}
