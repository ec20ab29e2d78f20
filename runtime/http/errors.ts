/** Errors -> OpenAI error objects. */
import { KedgeError, OverloadedError, RequestError } from "../errors.ts";

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
 * request, so it is printed nowhere.
 */
export function errorBody(error: unknown): ErrorBody {
  if (error instanceof KedgeError) {
    const { message, type, param, code } = error;
    return { error: { message, type, param, code } };
  }
  console.error(`answer request: wanted no error, found one at\n${stackFrames(error)}`);
  return {
    error: {
      message: "answer request: the server failed",
      type: "server_error",
      param: null,
      code: "internal_error",
    },
  };
}

export function errorResponse(error: unknown): Response {
  const headers = new Headers();
  if (error instanceof MethodError) headers.set("allow", error.allow);
  if (error instanceof OverloadedError) headers.set("retry-after", "1");
  const status = error instanceof KedgeError ? error.status : 500;
  return Response.json(errorBody(error), { status, headers });
}

/** The stack without the message above it. */
function stackFrames(error: unknown): string {
  if (!(error instanceof Error)) return `  (a thrown ${typeof error})`;
  const frames = error.stack?.split("\n").filter((line) => line.startsWith("    at ")) ?? [];
  return [`  ${error.name}`, ...frames].join("\n");
}
