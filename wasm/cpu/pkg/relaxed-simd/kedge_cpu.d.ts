/* tslint:disable */
/* eslint-disable */

export class Cpu {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * `sequences`: per sequence slot, first row, rows, past, first entry of `pages`.
     */
    begin(tokens: Uint32Array | number[], sequences: Uint32Array | number[], pages: Uint32Array | number[], logit_rows: Uint32Array | number[]): void;
    /**
     * Bytes that `configure` will allocate.
     */
    configureBytes(capacity: Uint32Array | number[]): number;
    configure(capacity: Uint32Array | number[]): void;
    /**
     * [taps - 1, q | k | v] of a KDA layer; empty for another.
     */
    convolutionState(layer: number, slot: number): Float32Array;
    declare(key: string, format: number, matrices: number, rows: number, columns: number, rows_per_scale: number, columns_per_scale: number): void;
    embed(): void;
    /**
     * The dense or MoE block of a layer.
     */
    feed(layer: number): void;
    /**
     * [count, latent + shared key] of an MLA layer; empty for another.
     */
    latents(layer: number, pages: Uint32Array | number[], count: number): Float32Array;
    /**
     * Address of the logits, [logit rows, vocabulary padded to 4].
     */
    logitsPointer(): number;
    /**
     * Floats from one row of logits to the next.
     */
    logitsStride(): number;
    logits(): void;
    /**
     * The KDA or MLA block of a layer.
     */
    mix(layer: number): void;
    /**
     * `sizes`: vocabulary, hidden, KDA heads, key, value, taps, MLA heads, latent, nope, shared
     * key, value, experts, experts per token, renormalize. `reals`: epsilon, latent epsilon,
     * routed scale. `layers`: per layer, bit 0 for MLA, bit 1 for experts.
     */
    constructor(sizes: Uint32Array | number[], reals: Float32Array | number[], layers: Uint8Array | number[]);
    nonFinite(): Uint8Array;
    /**
     * [heads, key_dim, value_dim] of a KDA layer; empty for another.
     */
    recurrentState(layer: number, slot: number): Float32Array;
    /**
     * [rows, hidden].
     */
    residual(): Float32Array;
    /**
     * [rows, experts per token], best first.
     */
    routedExperts(): Uint32Array;
    routedWeights(): Float32Array;
    /**
     * [MoE layers][experts]; resets.
     */
    takeExpertUse(): Uint32Array;
    writeScales(key: string, matrix: number, scales: Float32Array | number[]): void;
    write(key: string, matrix: number, byte_offset: number, bytes: Uint8Array | number[]): void;
    zeroSlot(slot: number): void;
}

/**
 * Bytes that one matrix takes in memory.
 */
export function matrixBytes(format: number, rows: number, columns: number, columns_per_scale: number): number;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_cpu_free: (a: number, b: number) => void;
    readonly cpu_begin: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number) => void;
    readonly cpu_configure: (a: number, b: number, c: number, d: number) => void;
    readonly cpu_configureBytes: (a: number, b: number, c: number) => number;
    readonly cpu_convolutionState: (a: number, b: number, c: number, d: number) => void;
    readonly cpu_declare: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number, j: number) => void;
    readonly cpu_embed: (a: number) => void;
    readonly cpu_feed: (a: number, b: number) => void;
    readonly cpu_latents: (a: number, b: number, c: number, d: number, e: number, f: number) => void;
    readonly cpu_logits: (a: number) => void;
    readonly cpu_logitsPointer: (a: number) => number;
    readonly cpu_logitsStride: (a: number) => number;
    readonly cpu_mix: (a: number, b: number) => void;
    readonly cpu_new: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
    readonly cpu_nonFinite: (a: number, b: number) => void;
    readonly cpu_recurrentState: (a: number, b: number, c: number, d: number) => void;
    readonly cpu_residual: (a: number, b: number) => void;
    readonly cpu_routedExperts: (a: number, b: number) => void;
    readonly cpu_routedWeights: (a: number, b: number) => void;
    readonly cpu_takeExpertUse: (a: number, b: number) => void;
    readonly cpu_write: (a: number, b: number, c: number, d: number, e: number, f: number, g: number) => void;
    readonly cpu_writeScales: (a: number, b: number, c: number, d: number, e: number, f: number) => void;
    readonly cpu_zeroSlot: (a: number, b: number) => void;
    readonly matrixBytes: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_export: (a: number, b: number) => number;
    readonly __wbindgen_export2: (a: number, b: number, c: number) => void;
    readonly __wbindgen_add_to_stack_pointer: (a: number) => number;
    readonly __wbindgen_export3: (a: number) => void;
    readonly __wbindgen_export4: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
