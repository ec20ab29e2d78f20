/**
 * The log: JSON lines for programs, a readable form for people, on standard error. Nothing that a
 * client sent gets here: the functions take ids, counts, names of keys and of routes.
 */
import {
  configureSync,
  getAnsiColorFormatter,
  getJsonLinesFormatter,
  getLogger,
  getTextFormatter,
  type TextFormatter,
} from "@logtape/logtape";
import type { LogLevel } from "./log_level.ts";

export interface LogOptions {
  readonly level: LogLevel;
  readonly form: "json" | "text" | "color";
  /** Takes each line with its end. */
  readonly write: (line: string) => void;
}

/** Until this is called nothing is written. A further call replaces the one before. */
export function startLog({ level, form, write }: LogOptions): void {
  const format = formatter(form);
  configureSync({
    reset: true,
    sinks: { lines: (record) => write(format(record)) },
    loggers: [
      { category: "kedge", sinks: ["lines"], lowestLevel: level },
      { category: ["logtape", "meta"], sinks: ["lines"], lowestLevel: "error" },
    ],
  });
}

/** Colors on a terminal that wants them, JSON where nobody reads along. */
export function formOf(output: { isTerminal(): boolean }, noColor: boolean): LogOptions["form"] {
  if (!output.isTerminal()) return "json";
  return noColor ? "text" : "color";
}

/** Waits until the line is out, so that none is lost when the process ends. */
export function writeToStandardError(line: string): void {
  const bytes = new TextEncoder().encode(line);
  for (let sent = 0; sent < bytes.length;) sent += Deno.stderr.writeSync(bytes.subarray(sent));
}

function formatter(form: LogOptions["form"]): TextFormatter {
  // The template says what happened; the values have keys of their own.
  if (form === "json") return getJsonLinesFormatter({ message: "template", properties: "flatten" });
  const options = { timestamp: "time", category: ".", value: String } as const;
  return form === "text" ? getTextFormatter(options) : getAnsiColorFormatter(options);
}

/** A request that was answered to its end. */
export interface RequestRecord {
  /** Made here, never the client's. */
  readonly id: string;
  readonly method: string;
  /** The route's pattern, never the path. */
  readonly route: string;
  readonly status: number;
  readonly milliseconds: number;
  /** null where nothing was generated. */
  readonly promptTokens: number | null;
  readonly completionTokens: number | null;
  /** The key's name; "" where no keys are asked for, or none was given. */
  readonly key: string;
}

const httpLog = getLogger(["kedge", "http"]);

/** `quiet` requests, such as probes, are of interest only to those who look for faults. */
export function logRequest(record: RequestRecord, quiet: boolean): void {
  const tokens = record.promptTokens === null
    ? ""
    : ", {promptTokens} prompt and {completionTokens} completion tokens";
  const key = record.key === "" ? "" : ", key {key}";
  const message = `{method} {route} {status} in {milliseconds} ms${tokens}${key} ({id})`;
  httpLog[quiet ? "debug" : "info"](message, { ...record });
}

/** A mistake of the server's own: where it happened, without the message, which may quote text. */
export function logFault(frames: string): void {
  httpLog.error("answer request: wanted no error, found one at\n{frames}", { frames });
}

/** What happens to the server as a whole. Messages are Kedge's own. */
export const serverLog = getLogger(["kedge", "server"]);
