/** The file of `--tuning`: a class of adapters, or shapes of workgroups in place of its own. */
import { z } from "zod";
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import { TUNINGS } from "../../kernels/gpu/tuning.ts";
import { UsageError } from "../errors.ts";
import { MAX_TUNING_FILE_BYTES, TUNING_COUNT_MAX } from "../limits.ts";

const CLASSES = ["software", "integrated", "discrete"] as const;

/** As errors say what was wanted. */
const COUNT = `a whole number from 1 to ${TUNING_COUNT_MAX}`;
const NAMES = "an object of numbers by name";

const count = z.int(COUNT).min(1, COUNT).max(TUNING_COUNT_MAX, COUNT);
const some = count.optional();
const tile = z.strictObject(
  { xRegisters: count, wRegisters: count, xThreads: count, wThreads: count },
  "an object with xRegisters, wRegisters, xThreads and wThreads",
);

const fileSchema = z.strictObject({
  class: z.enum(CLASSES, `one of ${CLASSES.join(", ")}`).optional(),
  projection: z.strictObject({ lanes: some, rows: some }, NAMES).optional(),
  out: z.strictObject({ lanes: some }, NAMES).optional(),
  up: z.strictObject({ lanes: some, tile: some, chunk: some }, NAMES).optional(),
  experts: z.strictObject({ rows: some, tile: some, steps: some }, NAMES).optional(),
  down: z.strictObject({ parts: some }, NAMES).optional(),
  attention: z.strictObject({ heads: some, positions: some }, NAMES).optional(),
  batch: z.strictObject({ rows: some, steps: some }, NAMES).optional(),
  prompt: z.strictObject({
    tiles: z.array(tile, "a list of tiles").max(16, "at most 16 tiles").optional(),
    workgroups: some,
  }, NAMES).optional(),
}, "an object");

/**
 * Throws UsageError for a file that can't be read or has other names and values. Whether the
 * numbers suit each other and the adapter is seen when the device opens.
 */
export function readTuningFile(path: string): TuningChoice {
  const refuse = (wanted: string, found: string): never => {
    throw new UsageError(`read tuning file "${path}": wanted ${wanted}, found ${found}`);
  };
  const value = parsed(path, refuse);
  const { data, error } = fileSchema.safeParse(value);
  if (data === undefined) {
    const issue = error.issues[0]!;
    const place = issue.path.join(".");
    if (issue.code === "unrecognized_keys") {
      const name = [...issue.path, issue.keys[0]].join(".");
      return refuse(`one of ${namesAt(issue.path).join(", ")}`, `"${name}"`);
    }
    const at = place === "" ? "" : ` at "${place}"`;
    return refuse(`${issue.message}${at}`, JSON.stringify(valueAt(value, issue.path)) ?? "nothing");
  }
  const { class: adapterClass, ...changes } = data;
  return { adapterClass, changes };
}

function parsed(path: string, refuse: (wanted: string, found: string) => never): unknown {
  let text: string;
  try {
    const bytes = Deno.readFileSync(path);
    if (bytes.length > MAX_TUNING_FILE_BYTES) {
      return refuse(`at most ${MAX_TUNING_FILE_BYTES} bytes`, `${bytes.length}`);
    }
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    return refuse("a text file", error instanceof Error ? error.message : String(error));
  }
  try {
    return JSON.parse(text);
  } catch {
    return refuse("JSON", "other text");
  }
}

/** The names that an object at this path may have. */
function namesAt(path: readonly PropertyKey[]): string[] {
  const names = Object.keys(valueAt(TUNINGS.discrete, path) as object);
  return path.length === 0 ? ["class", ...names] : names;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce((held, name) => (held as Record<PropertyKey, unknown>)?.[name], value);
}
