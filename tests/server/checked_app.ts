/** Holds every answer of an app to its own OpenAPI document. */
import { Ajv2020 } from "ajv/dist/2020.js";
import type { Hono } from "hono";
import { apiDocument } from "../../runtime/http/document.ts";
import { tinyVocabularySize } from "../tools/tiny_text.ts";

export const document = apiDocument(tinyVocabularySize, false);

const ajv = new Ajv2020({ strict: false, allErrors: false });
ajv.addSchema({ $id: "api", ...document });

// deno-lint-ignore no-explicit-any
type Json = any;

/** Why a value is not what the document says at `ref`, or null. */
export function mismatch(ref: string, value: unknown): string | null {
  const validate = ajv.getSchema(`api${ref}`);
  if (validate === undefined) return `wanted a schema at ${ref}, found none`;
  return validate(value) ? null : ajv.errorsText(validate.errors);
}

/** The same app; reading an answer that the document does not allow fails. */
export function checked(app: Hono): Hono {
  const answer = app.fetch;
  app.fetch = async (request, ...rest) => {
    const response = await answer(request, ...rest);
    const operation = operationOf(request);
    if (operation === null || request.method === "HEAD") return response;
    return readChecked(response, (text) => check(operation, response, text));
  };
  return app;
}

function operationOf({ method, url }: Request): Json | null {
  // Tests also send what is no URL.
  const path = (URL.parse(url)?.pathname ?? "").replace(/^\/v1\/models\/[^/]+$/, "/v1/models/{id}");
  const methods = Object.hasOwn(document.paths, path) ? document.paths[path] : {};
  return methods![method.toLowerCase()] ?? null;
}

/** Hands the body on as it is read, one piece for one, and checks it before its end. */
function readChecked(response: Response, check: (text: string) => void): Response {
  const { status, headers, body } = response;
  if (body === null) return response;
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const passed = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await reader.read();
      text += decoder.decode(value, { stream: !done });
      if (!done) return controller.enqueue(value);
      check(text);
      controller.close();
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return new Response(passed, { status, headers });
}

function check(operation: Json, { status, headers }: Response, text: string): void {
  const fail = (reason: string) => {
    throw new Error(`${operation.operationId} ${status}: ${reason}: ${text.slice(0, 500)}`);
  };
  // Nobody reads what a client that has left gets.
  if (status === 499) return;
  const documented = operation.responses[status];
  if (documented === undefined) return fail("wanted a documented status");
  const type = headers.get("content-type")?.split(";")[0] ?? "";
  const content = documented.content[type];
  if (content === undefined) return fail(`wanted a documented type, found ${type}`);
  const event = content.schema.properties?.data;
  const ref = (event?.anyOf?.at(-1) ?? event)?.contentSchema.$ref ?? content.schema.$ref;
  if (ref === undefined) return;
  const values = event ? data(text) : type.endsWith("ndjson") ? lines(text) : [text];
  for (const value of values) {
    const reason = mismatch(ref, JSON.parse(value));
    if (reason !== null) fail(reason);
  }
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

function data(text: string): string[] {
  return lines(text).filter((line) => line.startsWith("data: "))
    .map((line) => line.slice("data: ".length)).filter((value) => value !== "[DONE]");
}
