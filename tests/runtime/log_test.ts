/** The forms of the log. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { formOf, logFault, logRequest, serverLog, startLog } from "../../runtime/log.ts";

const RECORD = {
  id: "req_1",
  method: "POST",
  route: "/v1/completions",
  status: 200,
  milliseconds: 12,
  promptTokens: 3,
  completionTokens: 4,
  key: "kitchen",
};

function linesOf(form: "json" | "text" | "color", level: "debug" | "info" | "warning" | "error") {
  const lines: string[] = [];
  startLog({ form, level, write: (line) => void lines.push(line) });
  logRequest(RECORD, false);
  logRequest({ ...RECORD, promptTokens: null, completionTokens: null, key: "" }, true);
  logFault("  TypeError\n    at here");
  serverLog.warning("stopped: {answers} answers cut off", { answers: 2 });
  return lines;
}

Deno.test("log: JSON lines, one for each event whatever its text", () => {
  const lines = linesOf("json", "debug");
  equal(lines.length, 4);
  for (const line of lines) match(line, /^\{[^\n]+\}\n$/);
  const [request, quiet, fault, warning] = lines.map((line) => JSON.parse(line));
  deepEqual(Object.keys(request).slice(0, 4), ["@timestamp", "level", "message", "logger"]);
  for (const [name, value] of Object.entries(RECORD)) equal(request[name], value, name);
  deepEqual([quiet.level, quiet.promptTokens], ["DEBUG", null]);
  equal(fault.frames, "  TypeError\n    at here");
  deepEqual([warning.level, warning.logger, warning.answers], ["WARN", "kedge.server", 2]);
});

Deno.test("log: a form for people says the same in a sentence", () => {
  const [request, quiet, fault, warning] = linesOf("text", "debug");
  match(
    request!,
    /kedge\.http: POST \/v1\/completions 200 in 12 ms, 3 prompt and 4 .* key kitchen \(req_1\)\n$/,
  );
  match(quiet!, /POST \/v1\/completions 200 in 12 ms \(req_1\)\n$/);
  match(fault!, /found one at\n {2}TypeError\n {4}at here\n$/);
  match(warning!, /stopped: 2 answers cut off\n$/);
  ok(linesOf("color", "debug")[3]!.includes("\u001b["));
});

Deno.test("log: what is below the level is not written", () => {
  const count = { debug: 4, info: 3, warning: 2, error: 1 } as const;
  for (const [level, lines] of Object.entries(count)) {
    equal(linesOf("json", level as keyof typeof count).length, lines, level);
  }
});

Deno.test("log: JSON but on a terminal, colors where they are wanted", () => {
  const terminal = (isTerminal: boolean) => ({ isTerminal: () => isTerminal });
  equal(formOf(terminal(false), false), "json");
  equal(formOf(terminal(true), false), "color");
  equal(formOf(terminal(true), true), "text");
});
