/** The Rust crate in `text/`, instantiated once a thread. */
import * as wasm from "./text/pkg/kedge_text.js";

let memory: WebAssembly.Memory | null = null;

/** Instantiates the module in this thread, once; everything else here throws before it. */
export function loadTextModule(): void {
  if (memory !== null) return;
  const file = new URL("./text/pkg/kedge_text_bg.wasm", import.meta.url);
  memory = wasm.initSync({ module: Deno.readFileSync(file) }).memory;
}

/** The module's memory now: growing it gives a new buffer, so keep none over a call. */
export function textMemory(): ArrayBuffer {
  if (memory === null) throw new Error("use text module: wanted loadTextModule() called before");
  return memory.buffer as ArrayBuffer;
}

export function checkInteger(action: string, value: number, below: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= below) {
    throw new Error(`${action}: wanted an integer from 0 to below ${below}, found ${value}`);
  }
}
