/** Loads one of the two builds of the Rust crate. */
import * as baseline from "./cpu/pkg/simd128/kedge_cpu.js";
import * as relaxed from "./cpu/pkg/relaxed-simd/kedge_cpu.js";

export type CpuVariant = "simd128" | "relaxed-simd";

/** A loaded build and its memory, which all devices of that build and their helpers share. */
export interface CpuModule {
  readonly bindings: typeof baseline;
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
}

/** (v128, v128, v128) -> v128 by f32x4.relaxed_madd: valid where the engine has relaxed SIMD. */
// deno-fmt-ignore
const relaxedProbe = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
  0x01, 0x08, 0x01, 0x60, 0x03, 0x7b, 0x7b, 0x7b, 0x01, 0x7b,
  0x03, 0x02, 0x01, 0x00,
  0x0a, 0x0d, 0x01, 0x0b, 0x00, 0x20, 0x00, 0x20, 0x01, 0x20, 0x02, 0xfd, 0x85, 0x02, 0x0b,
]);

/** The faster build that this engine accepts. */
export function preferredVariant(): CpuVariant {
  return WebAssembly.validate(relaxedProbe) ? "relaxed-simd" : "simd128";
}

/** The glue of a build, which holds one instance on each JavaScript thread. */
export function bindingsOf(variant: CpuVariant): typeof baseline {
  return variant === "relaxed-simd" ? relaxed : baseline;
}

const loaded = new Map<CpuVariant, CpuModule>();

/** Compiles and instantiates a build on first use. */
export function loadModule(variant: CpuVariant): CpuModule {
  let entry = loaded.get(variant);
  if (entry === undefined) {
    const bindings = bindingsOf(variant);
    const file = new URL(`./cpu/pkg/${variant}/kedge_cpu_bg.wasm`, import.meta.url);
    const module = new WebAssembly.Module(Deno.readFileSync(file));
    const { memory } = bindings.initSync({ module });
    entry = { bindings, module, memory };
    loaded.set(variant, entry);
  }
  return entry;
}
