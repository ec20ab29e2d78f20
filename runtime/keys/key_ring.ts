/** The keys that a server takes. */
import { timingSafeEqual } from "node:crypto";
import { hashKey, type StoredKey } from "./api_key.ts";

export class KeyRing {
  #keys: readonly { readonly hash: Uint8Array; readonly key: StoredKey }[] = [];

  constructor(keys: readonly StoredKey[]) {
    this.replace(keys);
  }

  get size(): number {
    return this.#keys.length;
  }

  /** From the next request on. */
  replace(keys: readonly StoredKey[]): void {
    this.#keys = keys.map((key) => ({ hash: Uint8Array.fromHex(key.sha256), key }));
  }

  /**
   * The key that was presented, or null. Takes the same time wherever in the list it is: hashes are
   * compared, each in constant time, and with all of them.
   */
  find(presented: string): StoredKey | null {
    const hash = hashKey(presented);
    let found: StoredKey | null = null;
    for (const each of this.#keys) {
      if (timingSafeEqual(hash, each.hash)) found = each.key;
    }
    return found;
  }
}
