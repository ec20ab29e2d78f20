import { registerKedgeTinyTests } from "./kedge_tiny.ts";

registerKedgeTinyTests("cpu", [
  "hello",
  "about",
  "dragon",
  "words",
  "poem",
  "joke",
  "sum",
  "apples",
  "capital",
  "rainbow",
  "json",
  "copy",
  "persona",
  "needle",
  "tool_call",
  "tool_answer",
  "completion",
]);
