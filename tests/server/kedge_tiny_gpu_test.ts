import { registerKedgeTinyTests } from "./kedge_tiny.ts";

// A sample: the software adapter takes a second for ten tokens.
registerKedgeTinyTests("webgpu", ["hello", "about", "joke", "json"]);
