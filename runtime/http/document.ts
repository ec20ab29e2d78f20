/** The API's OpenAPI 3.1 document, of the schemas that requests are checked with. */
import { VERSION } from "../version.ts";
import { PUBLIC_PATHS } from "./auth.ts";
import type { JsonObject } from "./body.ts";
import { type AnswerName, referTo, schemaComponents } from "./components.ts";
import { COMMON_ERRORS, ERROR_WORDS, LINES, type Operation, OPERATIONS } from "./operations.ts";

export interface ApiDocument {
  readonly openapi: "3.1.0";
  readonly info: {
    readonly title: string;
    readonly version: string;
    readonly description: string;
    readonly license: { readonly name: string; readonly identifier: string };
  };
  readonly servers: readonly { readonly url: string }[];
  readonly tags: readonly { readonly name: string }[];
  /** By path and method. */
  readonly paths: Readonly<Record<string, Readonly<Record<string, JsonObject>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonObject>>;
    readonly securitySchemes: JsonObject;
  };
}

const DESCRIPTION = "Serves a Kimi-Linear model. Fields that are not listed are ignored; null is " +
  "the same as leaving a field out. Descriptions of what fields do together: docs/api.md.";

/** `hasKeys`: whether the server asks for API keys. */
export function apiDocument(vocabularySize: number, hasKeys: boolean): ApiDocument {
  const paths: Record<string, Record<string, JsonObject>> = {};
  for (const operation of OPERATIONS) {
    (paths[operation.path] ??= {})[operation.method] = operationObject(operation, hasKeys);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Kedge",
      version: VERSION,
      description: DESCRIPTION,
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    tags: [...new Set(OPERATIONS.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: {
      schemas: schemaComponents(vocabularySize),
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        header: { type: "apiKey", in: "header", name: "x-api-key" },
      },
    },
  };
}

function operationObject(operation: Operation, hasKeys: boolean): JsonObject {
  const { method, path, tag, summary, body, example } = operation;
  const isOpen = !hasKeys || PUBLIC_PATHS.has(path);
  return {
    operationId: `${method}${path.replaceAll(/[^a-z0-9]+/g, "_")}`,
    tags: [tag],
    summary,
    security: isOpen ? [] : [{ bearer: [] }, { header: [] }],
    ...(path.includes("{") && { parameters: parametersOf(path) }),
    ...(body && {
      requestBody: {
        required: true,
        content: { "application/json": { schema: referTo(body), example } },
      },
    }),
    responses: responsesOf(operation, isOpen),
  };
}

function parametersOf(path: string): JsonObject[] {
  return Array.from(path.matchAll(/\{(\w+)\}/g), ([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
}

function responsesOf({ tag, answer, stream, errors, unready }: Operation, isOpen: boolean) {
  const error: AnswerName = tag === "Anthropic"
    ? "MessagesError"
    : tag === "Ollama"
    ? "OllamaError"
    : "Error";
  const statuses = [...COMMON_ERRORS, ...errors].filter((status) => status !== 401 || !isOpen);
  const refusals = statuses.toSorted((a, b) => a - b).map((status): [number, JsonObject] => [
    status,
    {
      description: ERROR_WORDS[status]!,
      ...((status === 429 || (status === 503 && unready === undefined)) && { headers: RETRY }),
      content: jsonContent(status === 503 && unready ? unready : error),
    },
  ]);
  if (answer === null) return Object.fromEntries(refusals);
  const content = answer.includes("/")
    ? { [answer]: { schema: { type: answer.endsWith("json") ? "object" : "string" } } }
    : { ...jsonContent(answer as AnswerName), ...(stream && streamContent(stream)) };
  return { 200: { description: "The answer", content }, ...Object.fromEntries(refusals) };
}

const RETRY = {
  "retry-after": {
    description: "Seconds after which it is worth trying again",
    required: true,
    schema: { type: "integer", minimum: 1 },
  },
};

function jsonContent(name: AnswerName): JsonObject {
  return { "application/json": { schema: referTo(name) } };
}

/** In OpenAPI 3.1 the schema of a stream is that of each line or event, if not all agree on it. */
function streamContent({ type, item, end }: NonNullable<Operation["stream"]>): JsonObject {
  if (type === LINES) return { [type]: { schema: referTo(item) } };
  const json = { contentMediaType: "application/json", contentSchema: referTo(item) };
  const data = end === undefined ? json : { anyOf: [{ const: end }, json] };
  const properties = { event: { type: "string" }, data: { type: "string", ...data } };
  return { [type]: { schema: { type: "object", properties, required: ["data"] } } };
}
