/** API keys: the command that makes them, their file, and how they are found. */
import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { UsageError } from "../../runtime/errors.ts";
import { createKey, hashKey, type StoredKey } from "../../runtime/keys/api_key.ts";
import { changeKeyFile, defaultKeyFile, readKeyFile } from "../../runtime/keys/key_file.ts";
import { KeyRing } from "../../runtime/keys/key_ring.ts";
import { MAX_KEY_FILE_BYTES, MAX_KEYS } from "../../runtime/limits.ts";
import { kedge } from "../tools/kedge.ts";

const KEY = /^kedge-[A-Za-z0-9_-]{43}$/;

function storedKey(name: string, key = createKey()): StoredKey {
  return {
    name,
    sha256: hashKey(key).toHex(),
    scopes: ["infer"],
    limits: { requests: null },
    created: "2026-01-01T00:00:00.000Z",
  };
}

function inFolder(action: (folder: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const folder = await Deno.makeTempDir();
    try {
      await action(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  };
}

Deno.test(
  "keys add shows a key once and keeps its hash, for the user's eyes only",
  inFolder(async (folder) => {
    const environment = { XDG_CONFIG_HOME: folder };
    const added = await kedge(["keys", "add", "kitchen", "--requests", "3"], environment);
    equal(added.code, 0, added.err);
    const key = added.out.trim();
    match(key, KEY);
    const path = `${folder}/kedge/keys.json`;
    equal(Deno.statSync(path).mode! & 0o777, 0o600);
    equal(Deno.statSync(`${folder}/kedge`).mode! & 0o777, 0o700);
    const text = Deno.readTextFileSync(path);
    equal(text.includes(key.slice(6)), false);
    equal(added.err.includes(key.slice(6)), false);
    const [stored] = readKeyFile(path);
    deepEqual({ ...stored, created: "" }, {
      name: "kitchen",
      sha256: hashKey(key).toHex(),
      scopes: ["infer"],
      limits: { requests: 3 },
      created: "",
    });
    ok(Math.abs(Date.parse(stored!.created) - Date.now()) < 60_000);
    equal(new KeyRing(readKeyFile(path)).find(key)?.name, "kitchen");
    deepEqual([...Deno.readDirSync(`${folder}/kedge`)].map(({ name }) => name), ["keys.json"]);
  }),
);

Deno.test(
  "keys: list shows what is known, revoke takes one away, names are taken once",
  inFolder(async (folder) => {
    const environment = { KEDGE_KEYS: `${folder}/own.json` };
    const run = (...args: string[]) => kedge(["keys", ...args], environment);
    equal((await run("list")).out, "name  scopes  requests  created\n");
    equal((await run("add", "a")).code, 0);
    equal((await run("add", "b", "--scope", "metrics,infer,metrics")).code, 0);
    const twice = await run("add", "a");
    deepEqual([twice.code, twice.out], [2, ""]);
    match(twice.err, /^kedge: add key: wanted a new name, found "a" in ".*own\.json"\n$/);
    const list = (await run("list")).out.trimEnd().split("\n");
    equal(list.length, 3);
    match(list[1]!, /^a +infer +- +20\d\d-\S+Z$/);
    match(list[2]!, /^b +metrics,infer +- +20\d\d-\S+Z$/);
    equal((await run("revoke", "a")).code, 0);
    deepEqual(readKeyFile(environment.KEDGE_KEYS).map(({ name }) => name), ["b"]);
    const gone = await run("revoke", "a");
    equal(gone.code, 2);
    match(gone.err, /^kedge: revoke key: wanted a name in ".*", found none like "a"\n$/);
  }),
);

Deno.test("keys refuses wrong names, scopes and counts in one line with status 2", async () => {
  for (
    const [args, message] of [
      [["add", ""], /wanted a name of 1 to 64/],
      [["add", "a b"], /wanted a name of 1 to 64/],
      [["add", "-a"], /unknown option '-a'/],
      [["add", "a\nb"], /wanted a name of 1 to 64/],
      [["add", "a".repeat(65)], /wanted a name of 1 to 64/],
      [["add", "a", "--scope", "root"], /wanted some of infer,admin,metrics/],
      [["add", "a", "--scope", ""], /wanted some of infer,admin,metrics/],
      [["add", "a", "--requests", "0"], /wanted a whole number from 1 to/],
      [["add"], /missing required argument 'name'/],
      [["drop"], /unknown command 'drop'/],
    ] as const
  ) {
    const { code, out, err } = await kedge(["keys", ...args], { KEDGE_KEYS: "/nowhere/keys.json" });
    deepEqual([code, out], [2, ""], err);
    match(err, message);
    equal(err.trimEnd().split("\n").length, 1, err);
  }
});

Deno.test(
  "key file: changes at the same time all count",
  inFolder(async (folder) => {
    const environment = { KEDGE_KEYS: `${folder}/keys.json` };
    const names = ["a", "b", "c", "d", "e", "f"];
    const outcomes = await Promise.all(
      names.map((name) => kedge(["keys", "add", name], environment)),
    );
    deepEqual(outcomes.map(({ code }) => code), names.map(() => 0));
    deepEqual(readKeyFile(environment.KEDGE_KEYS).map(({ name }) => name).sort(), names);
  }),
);

Deno.test(
  "key file: a change that fails leaves the file as it was, and nothing beside it",
  inFolder((folder) => {
    const path = `${folder}/keys.json`;
    changeKeyFile(path, () => [storedKey("a")]);
    const before = Deno.readTextFileSync(path);
    const failure = new UsageError("add key: wanted another, found this");
    throws(() =>
      changeKeyFile(path, () => {
        throw failure;
      }), failure);
    throws(
      () => changeKeyFile(path, () => Array.from({ length: MAX_KEYS + 1 }, () => storedKey("a"))),
      /wanted at most 1024 keys, found 1025/,
    );
    equal(Deno.readTextFileSync(path), before);
    deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["keys.json"]);
    Deno.mkdirSync(`${folder}/folder.json`);
    throws(() => changeKeyFile(`${folder}/folder.json`, () => []), /wanted a file, found another/);
    throws(() => changeKeyFile(`${path}/keys.json`, () => []), /^UsageError: write key file "/);
  }),
);

Deno.test(
  "key file: anything but what is written there is refused with its place",
  inFolder((folder) => {
    const path = `${folder}/keys.json`;
    throws(() => readKeyFile(path), /wanted a file, found none; "kedge keys add" makes one$/);
    const key = storedKey("a");
    const file = (...keys: unknown[]) => JSON.stringify({ version: 1, keys });
    for (
      const [text, message] of [
        ["", /wanted JSON, found other text$/],
        ["[", /wanted JSON, found other text$/],
        ["[]", /found another value at "the top"$/],
        [JSON.stringify({ version: 2, keys: [] }), /at "version"$/],
        [file({ ...key, extra: 1 }), /at "keys\.0"$/],
        [file(key, { ...key, name: "b", sha256: key.sha256.slice(1) }), /at "keys\.1\.sha256"$/],
        [file({ ...key, sha256: key.sha256.toUpperCase() }), /at "keys\.0\.sha256"$/],
        [file({ ...key, scopes: [] }), /at "keys\.0\.scopes"$/],
        [file({ ...key, scopes: ["root"] }), /at "keys\.0\.scopes\.0"$/],
        [file({ ...key, limits: {} }), /at "keys\.0\.limits\.requests"$/],
        [file({ ...key, limits: { requests: 0 } }), /at "keys\.0\.limits\.requests"$/],
        [file({ ...key, name: "a\nb" }), /at "keys\.0\.name"$/],
        [file({ ...key, created: "today" }), /at "keys\.0\.created"$/],
        [file(key, key), /wanted each name once, found "a" twice$/],
        [" ".repeat(MAX_KEY_FILE_BYTES + 1), /wanted at most \d+ bytes, found \d+$/],
      ] as const
    ) {
      Deno.writeTextFileSync(path, text);
      throws(() => readKeyFile(path), message);
      throws(() => readKeyFile(path), UsageError);
    }
    Deno.writeTextFileSync(path, file(key));
    deepEqual(readKeyFile(path), [key]);
  }),
);

Deno.test("key file: its default place follows the user's configuration", () => {
  const place = (environment: Record<string, string>) =>
    defaultKeyFile((name) => environment[name]);
  equal(place({ XDG_CONFIG_HOME: "/c", HOME: "/h" }), "/c/kedge/keys.json");
  equal(place({ HOME: "/h" }), "/h/.config/kedge/keys.json");
  equal(place({ XDG_CONFIG_HOME: "relative", HOME: "/h" }), "/h/.config/kedge/keys.json");
  throws(() => place({}), /wanted --file, KEDGE_KEYS or HOME, found none$/);
});

Deno.test("key ring: finds each of its keys and no other", () => {
  const keys = Array.from({ length: 20 }, createKey);
  equal(new Set(keys).size, keys.length);
  const ring = new KeyRing(keys.map((key, index) => storedKey(`k${index}`, key)));
  keys.forEach((key, index) => equal(ring.find(key)?.name, `k${index}`));
  for (const other of ["", "kedge-", createKey(), `${keys[0]} `, keys[0]!.slice(0, -1)]) {
    equal(ring.find(other), null);
  }
  equal(new KeyRing([]).find(keys[0]!), null);
});

/** Welch's t of two samples, without the slowest tenth of each: those met another program. */
function welch(a: readonly number[], b: readonly number[]): number {
  const moments = (times: readonly number[]) => {
    const kept = [...times].sort((x, y) => x - y).slice(0, Math.floor(times.length * 0.9));
    const mean = kept.reduce((sum, time) => sum + time, 0) / kept.length;
    const squares = kept.reduce((sum, time) => sum + (time - mean) ** 2, 0);
    return { mean, error: squares / (kept.length - 1) / kept.length };
  };
  const [left, right] = [moments(a), moments(b)];
  return (left.mean - right.mean) / Math.sqrt(left.error + right.error);
}

Deno.test("key ring: the time to find a key tells nothing of it", () => {
  const COMPARES = 20_000;
  const keys = Array.from({ length: 16 }, createKey);
  const ring = new KeyRing(keys.map((key, index) => storedKey(`k${index}`, key)));
  const first = keys[0]!;
  // One that is found at once in a list that is left early, and one that begins as it and is none.
  const others = [keys.at(-1)!, first.slice(0, -2) + (first.endsWith("AA") ? "BB" : "AA")];
  for (const other of others) {
    // Other programs disturb one round, not three alike; a leak shows in all.
    const rounds = Array.from({ length: 3 }, () => {
      const times: [number[], number[]] = [[], []];
      for (let compare = 0; compare < COMPARES; compare++) {
        // Mixed without a period that other work of the machine could share.
        const kind = Math.imul(compare, 0x9e3779b1) >>> 31 as 0 | 1;
        const began = performance.now();
        ring.find(kind === 0 ? first : other);
        times[kind].push(performance.now() - began);
      }
      return Math.abs(welch(...times));
    });
    ok(Math.min(...rounds) < 4.5, `|t| ${rounds.map((t) => t.toFixed(1)).join(", ")}`);
  }
});
