/** API keys: how they are made, and what of them is kept. */
import { createHash } from "node:crypto";
import type { OwnerLimits } from "../engine/engine.ts";
import type { Scope } from "./scope.ts";

/** What is kept of a key. The key itself is nowhere. */
export interface StoredKey {
  readonly name: string;
  /** SHA-256 of the key's text, in hexadecimal. Keys are random, so no salt or slow hash is due. */
  readonly sha256: string;
  readonly scopes: readonly Scope[];
  readonly limits: OwnerLimits;
  /** ISO 8601. */
  readonly created: string;
}

const KEY_BYTES = 32;

/** `kedge-` and 43 letters, digits, `-` and `_`: 256 random bits. */
export function createKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return `kedge-${bytes.toBase64({ alphabet: "base64url", omitPadding: true })}`;
}

/** 32 bytes. */
export function hashKey(key: string): Uint8Array {
  return createHash("sha256").update(key).digest();
}

export function allows(key: StoredKey, scope: Scope): boolean {
  return key.scopes.includes(scope) || key.scopes.includes("admin");
}
