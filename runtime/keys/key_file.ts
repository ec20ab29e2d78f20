/** The file of keys: read whole, replaced whole. */
import { z } from "zod";
import { UsageError } from "../errors.ts";
import { MAX_KEY_FILE_BYTES, MAX_KEYS, QUEUE_REQUESTS_MAX } from "../limits.ts";
import type { StoredKey } from "./api_key.ts";
import { SCOPES } from "./scope.ts";

/** Letters, digits and `. _ -`: names appear in logs and in the scheduler's accounts. */
export const KEY_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

const fileSchema = z.strictObject({
  version: z.literal(1),
  keys: z.array(z.strictObject({
    name: z.string().regex(KEY_NAME),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    scopes: z.array(z.enum(SCOPES)).min(1),
    limits: z.strictObject({ requests: z.int().min(1).max(QUEUE_REQUESTS_MAX).nullable() }),
    created: z.iso.datetime(),
  })).max(MAX_KEYS),
});

/** `$XDG_CONFIG_HOME/kedge/keys.json`, else below the user's home. Throws UsageError without. */
export function defaultKeyFile(environment: (name: string) => string | undefined): string {
  const folder = environment("XDG_CONFIG_HOME");
  // The standard has relative ones ignored.
  if (folder?.startsWith("/")) return `${folder}/kedge/keys.json`;
  const home = environment("HOME");
  if (home === undefined || home === "") {
    throw new UsageError("find the key file: wanted --file, KEDGE_KEYS or HOME, found none");
  }
  return `${home}/.config/kedge/keys.json`;
}

/** Throws UsageError for a file that is not there or not as changeKeyFile writes it. */
export function readKeyFile(path: string): readonly StoredKey[] {
  const keys = readIfThere(path);
  if (keys === null) {
    throw new UsageError(
      `read key file "${path}": wanted a file, found none; "kedge keys add" makes one`,
    );
  }
  return keys;
}

/** As readKeyFile; no keys when there is no file. */
export function readKeyFileOrNone(path: string): readonly StoredKey[] {
  return readIfThere(path) ?? [];
}

/**
 * Replaces the keys by what `change` makes of them. A crash at any moment leaves the old file or
 * the new one; two changes at a time follow each other. Throws UsageError, as `change` may.
 */
export function changeKeyFile(
  path: string,
  change: (keys: readonly StoredKey[]) => readonly StoredKey[],
): void {
  const folderPath = /^(.*)\/[^/]*$/.exec(path)?.[1] ?? ".";
  try {
    Deno.mkdirSync(folderPath || "/", { recursive: true, mode: FOLDER_MODE });
    using folder = Deno.openSync(folderPath || "/");
    folder.lockSync(true);
    const keys = change(readIfThere(path) ?? []);
    if (keys.length > MAX_KEYS) {
      throw new UsageError(
        `write key file "${path}": wanted at most ${MAX_KEYS} keys, found ${keys.length}`,
      );
    }
    replaceFile(path, `${JSON.stringify({ version: 1, keys }, null, 2)}\n`);
    // The rename itself lasts only when the folder is on disk too.
    folder.syncSync();
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`write key file "${path}": ${faultOf(error)}`);
  }
}

function readIfThere(path: string): readonly StoredKey[] | null {
  let bytes: Uint8Array;
  try {
    const { size, isFile } = Deno.statSync(path);
    if (!isFile) throw new UsageError(`read key file "${path}": wanted a file, found another kind`);
    if (size > MAX_KEY_FILE_BYTES) {
      throw new UsageError(
        `read key file "${path}": wanted at most ${MAX_KEY_FILE_BYTES} bytes, found ${size}`,
      );
    }
    bytes = Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    if (error instanceof UsageError) throw error;
    throw new UsageError(`read key file "${path}": ${faultOf(error)}`);
  }
  return parseKeys(path, bytes);
}

function parseKeys(path: string, bytes: Uint8Array): readonly StoredKey[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new UsageError(`read key file "${path}": wanted JSON, found other text`);
  }
  const { data, error } = fileSchema.safeParse(value);
  if (data === undefined) {
    const place = error.issues[0]!.path.join(".") || "the top";
    throw new UsageError(
      `read key file "${path}": wanted what "kedge keys add" writes, found another value ` +
        `at "${place}"`,
    );
  }
  const names = new Set<string>();
  for (const { name } of data.keys) {
    if (names.has(name)) {
      throw new UsageError(`read key file "${path}": wanted each name once, found "${name}" twice`);
    }
    names.add(name);
  }
  return data.keys;
}

/** Writes beside the file, then takes its place. */
function replaceFile(path: string, text: string): void {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  try {
    {
      using file = Deno.openSync(temporary, { write: true, createNew: true, mode: FILE_MODE });
      const bytes = new TextEncoder().encode(text);
      for (let sent = 0; sent < bytes.length;) sent += file.writeSync(bytes.subarray(sent));
      file.syncSync();
    }
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // It was never made; the error above tells why.
    }
    throw error;
  }
}

/** The system's words without the path that Deno adds to them. */
function faultOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/: (open|stat|mkdir|rename|readfile|lock) '.*$/, "");
}
