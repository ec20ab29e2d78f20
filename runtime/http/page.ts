/** The API's document as one page of HTML: no script, and nothing that it would have to load. */
import { isObject } from "../json_text.ts";
import type { JsonObject } from "./body.ts";
import type { ApiDocument } from "./document.ts";

const STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: light-dark(#06c, #7bf); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem 2rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre { font: 0.9em ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 6px; overflow-x: auto; padding: 0.6rem 0.9rem; }
nav li { margin: 0.1rem 0; }
nav ul { list-style: none; padding-left: 0; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; }
h3 { font-size: 1.05rem; }
.method { background: var(--soft); border-radius: 4px; display: inline-block; font-size: 0.75rem;
  font-weight: 600; margin-right: 0.5rem; padding: 0.1rem 0.4rem; text-align: center;
  width: 2.6rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid var(--line); padding: 0.3rem 1rem 0.3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; width: 1%; }
td p { margin: 0; opacity: 0.75; }
summary { cursor: pointer; }
details > table, details > ul { box-sizing: border-box; margin: 0 0 0 1rem;
  width: calc(100% - 1rem); }
`;

/** Answers with the page. Its policy lets a browser load nothing but the page's own style. */
export async function showPage(document: ApiDocument): Promise<Response> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(STYLE));
  const style = `'sha256-${btoa(String.fromCharCode(...new Uint8Array(digest)))}'`;
  const policy = `default-src 'none'; style-src ${style}; base-uri 'none'; form-action 'none'; ` +
    "frame-ancestors 'none'";
  return new Response(pageOf(document), {
    headers: {
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": policy,
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
    },
  });
}

function pageOf({ info, tags, paths, components }: ApiDocument): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation }))
  );
  const lists = tags.map(({ name }) => {
    const own = operations.filter(({ operation }) => (operation.tags as string[]).includes(name));
    return `<h2>${escape(name)}</h2><ul>${own.map(entryOf).join("")}</ul>`;
  });
  const schemas = Object.entries(components.schemas).map(([name, schema]) =>
    `<section id="${anchorOf(name)}"><h3>${escape(name)}</h3>${blockOf(schema)}</section>`
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escape(info.title)} API</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escape(info.title)} ${escape(info.version)}</h1>
<p>${escape(info.description)}</p>
<p>For programs: <a href="openapi.json">openapi.json</a></p>
<nav>${lists.join("")}</nav>
<h2>Routes</h2>
${operations.map(sectionOf).join("\n")}
<h2>Schemas</h2>
${schemas.join("\n")}
</body>
</html>
`;
}

interface Route {
  readonly path: string;
  readonly method: string;
  readonly operation: JsonObject;
}

function entryOf({ path, method, operation }: Route): string {
  return `<li>${methodOf(method)}<a href="#${operation.operationId}"><code>${escape(path)}</code>` +
    `</a> ${escape(String(operation.summary))}</li>`;
}

function methodOf(method: string): string {
  return `<span class="method">${method.toUpperCase()}</span>`;
}

function sectionOf({ path, method, operation }: Route): string {
  const { operationId, summary, requestBody, responses, security } = operation;
  const key = (security as unknown[]).length > 0 ? "<p>Needs an API key.</p>" : "";
  const rows = Object.entries(responses as Record<string, JsonObject>).map(([status, response]) =>
    rowOf(status, contentOf(response.content), String(response.description))
  );
  return `<section id="${operationId}"><h3>${methodOf(method)}<code>${escape(path)}</code></h3>
<p>${escape(String(summary))}</p>${key}${bodyOf(requestBody as JsonObject | undefined)}
<table>${rows.join("")}</table></section>`;
}

function bodyOf(body: JsonObject | undefined): string {
  if (body === undefined) return "";
  const [content] = Object.values(body.content as Record<string, JsonObject>);
  const example = escape(JSON.stringify(content!.example, null, 2));
  return `<p>Body: ${inlineOf(content!.schema)}, for example</p><pre>${example}</pre>`;
}

function contentOf(content: unknown): string {
  return Object.entries(content as Record<string, JsonObject>).map(([type, each]) => {
    const { properties } = each.schema as JsonObject;
    const data = isObject(properties) ? properties.data as JsonObject : null;
    const event = data === null ? null : (data.anyOf as JsonObject[] | undefined)?.at(-1) ?? data;
    const what = event === null
      ? inlineOf(each.schema)
      : `events of ${inlineOf(event.contentSchema)}`;
    return `${what} <code>${escape(type)}</code>`;
  }).join("<br>");
}

function rowOf(name: string, type: string, description: unknown, isRequired = false): string {
  const words = typeof description === "string" ? `<p>${escape(description)}</p>` : "";
  const mark = isRequired ? "<p>required</p>" : "";
  return `<tr><td><code>${escape(name)}</code>${mark}</td><td>${type}${words}</td></tr>`;
}

/** A schema in a block of its own: an object's fields as a table. */
function blockOf(schema: JsonObject): string {
  return isObject(schema.properties) ? tableOf(schema) : `<p>${inlineOf(schema)}</p>`;
}

function tableOf({ properties, required = [] }: JsonObject): string {
  const rows = Object.entries(properties as Record<string, JsonObject>).map(([name, field]) => {
    return rowOf(name, inlineOf(field), field.description, (required as string[]).includes(name));
  });
  return `<table>${rows.join("")}</table>`;
}

/** What a schema takes, in words; what has parts of its own can be opened. */
function inlineOf(value: unknown): string {
  const schema = value as JsonObject;
  if (typeof schema.$ref === "string") {
    const name = schema.$ref.slice(schema.$ref.lastIndexOf("/") + 1);
    return `<a href="#${anchorOf(name)}">${escape(name)}</a>`;
  }
  if ("const" in schema) return `<code>${escape(JSON.stringify(schema.const))}</code>`;
  if (Array.isArray(schema.enum)) {
    return schema.enum.map((each) => `<code>${escape(JSON.stringify(each))}</code>`).join(" or ");
  }
  if (partsOf(schema) !== null) return choiceOf(schema);
  if (isObject(schema.properties)) {
    return `<details><summary>object</summary>${tableOf(schema)}</details>`;
  }
  if (Array.isArray(schema.prefixItems)) {
    return `[${schema.prefixItems.map(inlineOf).join(", ")}]`;
  }
  if (isObject(schema.items)) {
    return `list${boundsOf(schema, "Items", "items")} of ${inlineOf(schema.items)}`;
  }
  const types = [schema.type ?? "any value"].flat().map(String).join(" or ");
  return escape(types) + boundsOf(schema, "", "") + boundsOf(schema, "Length", "characters") +
    boundsOf(schema, "Properties", "keys");
}

function partsOf({ anyOf, oneOf }: JsonObject): readonly JsonObject[] | null {
  return (anyOf ?? oneOf ?? null) as JsonObject[] | null;
}

/** The choices of a schema, and of those in it. */
function choicesOf(schema: JsonObject): JsonObject[] {
  return partsOf(schema)?.flatMap(choicesOf) ?? [schema];
}

function choiceOf(schema: JsonObject): string {
  const texts = choicesOf(schema).map(inlineOf);
  const isLong = (text: string) => text.includes("<details");
  const short = texts.filter((text) => !isLong(text));
  const long = texts.filter(isLong);
  if (long.length < 2) return [...short, ...long].join(" or ");
  return `<details><summary>one of ${texts.length}</summary><ul>${
    texts.map((text) => `<li>${text}</li>`).join("")
  }</ul></details>`;
}

/** The bounds that a schema names `minLength` and `maxLength`, or alike. */
function boundsOf(schema: JsonObject, name: string, unit: string): string {
  const least = name === "" ? schema.minimum : schema[`min${name}`];
  const most = name === "" ? schema.maximum : schema[`max${name}`];
  if (least === undefined && most === undefined) return "";
  const range = most === undefined
    ? `at least ${least}`
    : least === undefined
    ? `at most ${most}`
    : `${least} to ${most}`;
  return `, ${range}${unit && ` ${unit}`}`;
}

function anchorOf(name: string): string {
  return `schema-${name}`;
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", '"': "&quot;" };

function escape(text: string): string {
  return text.replace(/[&<"]/g, (character) => ENTITIES[character]!);
}
