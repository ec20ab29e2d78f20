/**
 * Every way Kedge refuses or fails, one class a kind. The HTTP layer's only table from class to
 * status lives here; the command line maps `exitCode`.
 *
 * Message grammar: the action that failed, quoted values, a colon, wanted and found, no full stop.
 */

export abstract class KedgeError extends Error {
  /** HTTP status of a request that ends with this error. */
  abstract readonly status: number;
  /** `error.type` of an OpenAI error object. */
  abstract readonly type: string;
  /** `error.code` of an OpenAI error object, or null. */
  readonly code: string | null = null;
  /** `error.param`: the request field at fault, or null. */
  readonly param: string | null = null;
  /** Exit status when the command line ends with this error. */
  readonly exitCode: number = 1;
  override get name(): string {
    return this.constructor.name;
  }
}

/** A flag, environment value or file name that the command line can't accept. Exit status 2. */
export class UsageError extends KedgeError {
  readonly status = 400;
  readonly type = "invalid_request_error";
  override readonly exitCode = 2;
}

/** A model folder that can't be served: names file, tensor, wanted, found. Exit status 3. */
export class ModelError extends KedgeError {
  readonly status = 500;
  readonly type = "server_error";
  override readonly exitCode = 3;
}

/** No device of the wanted kind, or one too small for the model. Exit status 3. */
export class DeviceError extends KedgeError {
  readonly status = 500;
  readonly type = "server_error";
  override readonly exitCode = 3;
}

/** A request that is wrong in itself. */
export class RequestError extends KedgeError {
  readonly status: number = 400;
  readonly type: string = "invalid_request_error";
  override readonly param: string | null;
  override readonly code: string | null;
  constructor(message: string, param: string | null = null, code: string | null = null) {
    super(message);
    this.param = param;
    this.code = code;
  }
}

/** A route, method or model that does not exist. */
export class NotFoundError extends RequestError {
  override readonly status: number = 404;
  override readonly type: string = "not_found_error";
}

/** A body over the size limit. */
export class TooLargeError extends RequestError {
  override readonly status: number = 413;
}

/** The server can't take more requests now. */
export class OverloadedError extends KedgeError {
  readonly status: number = 503;
  readonly type: string = "overloaded_error";
  override readonly code: string = "server_overloaded";
  /** When it is worth trying again: whole seconds, at least 1. */
  readonly retryAfterSeconds: number;
  constructor(message: string, retryAfterSeconds = 1) {
    super(message);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** A client has as many requests under way as its key allows. */
export class RateLimitError extends OverloadedError {
  override readonly status = 429;
  override readonly type = "rate_limit_error";
  override readonly code = "rate_limit_exceeded";
}

/** A key is missing or unknown. */
export class AuthenticationError extends RequestError {
  override readonly status = 401;
  override readonly type = "authentication_error";
}

/** The key is known but may not do this, or the request comes from where none may. */
export class PermissionError extends RequestError {
  override readonly status = 403;
  override readonly type = "permission_error";
}

/** A route that this kind of model can't answer. */
export class UnsupportedError extends RequestError {
  override readonly status = 501;
}

/** A request took longer than it was given. */
export class TimeoutError extends RequestError {
  override readonly status = 408;
  override readonly type = "timeout_error";
}

/** The engine failed while the request ran; the request's fault or not, nothing was lost but it. */
export class EngineError extends KedgeError {
  readonly status = 500;
  readonly type = "server_error";
  override readonly code: string | null;
  constructor(message: string, code: string | null = null) {
    super(message);
    this.code = code;
  }
}
