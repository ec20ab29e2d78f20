/** What the log says while a test runs. */
import { startLog } from "../../runtime/log.ts";

// deno-lint-ignore no-explicit-any
export type LogLine = Readonly<Record<string, any>>;

/** Collects the lines from now on, each as its JSON. */
export function collectLog(): LogLine[] {
  const lines: LogLine[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line));
  startLog({ level: "debug", form: "json", write });
  return lines;
}
