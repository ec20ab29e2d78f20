/** `kedge keys`: makes, lists and revokes API keys. */
import { UsageError } from "../errors.ts";
import { createKey, hashKey, type StoredKey } from "../keys/api_key.ts";
import { changeKeyFile, defaultKeyFile, KEY_NAME, readKeyFileOrNone } from "../keys/key_file.ts";
import type { Scope } from "../keys/scope.ts";

export interface KeyFileOptions {
  readonly file?: string;
}

export interface AddKeyOptions extends KeyFileOptions {
  readonly scope: readonly Scope[];
  /** Most requests at once. */
  readonly requests?: number;
}

const RELOAD_HINT = "a server that runs takes it up at SIGHUP";

/** Standard output holds the key and nothing else. Throws UsageError. */
export function addKey(name: string, options: AddKeyOptions): void {
  if (!KEY_NAME.test(name)) {
    throw new UsageError(
      "add key: wanted a name of 1 to 64 letters, digits, dots, dashes and underscores, " +
        "that begins with a letter or digit, found another",
    );
  }
  const file = pathOf(options);
  const key = createKey();
  const stored: StoredKey = {
    name,
    sha256: hashKey(key).toHex(),
    scopes: options.scope,
    limits: { requests: options.requests ?? null },
    created: new Date().toISOString(),
  };
  changeKeyFile(file, (keys) => {
    if (keys.some((each) => each.name === name)) {
      throw new UsageError(`add key: wanted a new name, found "${name}" in "${file}"`);
    }
    return [...keys, stored];
  });
  console.log(key);
  console.error(`key "${name}" added to "${file}"; it is shown this once; ${RELOAD_HINT}`);
}

/** Throws UsageError. */
export function listKeys(options: KeyFileOptions): void {
  const keys = readKeyFileOrNone(pathOf(options));
  const rows = keys.map(({ name, scopes, limits, created }) => [
    name,
    scopes.join(","),
    limits.requests === null ? "-" : `${limits.requests}`,
    created,
  ]);
  console.log(tableText([["name", "scopes", "requests", "created"], ...rows]));
}

/** Throws UsageError. */
export function revokeKey(name: string, options: KeyFileOptions): void {
  const file = pathOf(options);
  changeKeyFile(file, (keys) => {
    const rest = keys.filter((each) => each.name !== name);
    if (rest.length === keys.length) {
      throw new UsageError(`revoke key: wanted a name in "${file}", found none like "${name}"`);
    }
    return rest;
  });
  console.error(`key "${name}" revoked in "${file}"; ${RELOAD_HINT}`);
}

function pathOf({ file }: KeyFileOptions): string {
  return file ?? defaultKeyFile((name) => Deno.env.get(name));
}

/** Columns two spaces apart. */
function tableText(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd())
    .join("\n");
}
