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
     * Helpers that have come and not left.
     */
    helpers(): number;
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
     * Address of the pool, a reference to it that one `Helper` takes over.
     */
    poolPointer(): number;
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
     * Tells the helpers to leave.
     */
    stopHelpers(): void;
    /**
     * [MoE layers][experts]; resets.
     */
    takeExpertUse(): Uint32Array;
    writeGroupScales(key: string, matrix: number, byte_offset: number, bytes: Uint8Array | number[]): void;
    writeScales(key: string, matrix: number, scales: Float32Array | number[]): void;
    write(key: string, matrix: number, byte_offset: number, bytes: Uint8Array | number[]): void;
    zeroSlot(slot: number): void;
}

/**
 * A helper's side of a pool.
 */
export class Helper {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Works, then sleeps for a while. False when the pool is stopped: the helper has left it.
     */
    help(): boolean;
    /**
     * Takes over the reference that `poolPointer` gave; `thread`: its number, from 1.
     */
    constructor(pool: number, thread: number);
}

/**
 * Bytes that one matrix takes in memory.
 */
export function matrixBytes(format: number, rows: number, columns: number, columns_per_scale: number): number;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly __wbg_cpu_free: (a: number, b: number) => void;
    readonly __wbg_helper_free: (a: number, b: number) => void;
    readonly cpu_begin: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number) => void;
    readonly cpu_configure: (a: number, b: number, c: number) => [number, number];
    readonly cpu_configureBytes: (a: number, b: number, c: number) => number;
    readonly cpu_convolutionState: (a: number, b: number, c: number) => [number, number];
    readonly cpu_declare: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number) => [number, number];
    readonly cpu_embed: (a: number) => void;
    readonly cpu_feed: (a: number, b: number) => void;
    readonly cpu_helpers: (a: number) => number;
    readonly cpu_latents: (a: number, b: number, c: number, d: number, e: number) => [number, number];
    readonly cpu_logits: (a: number) => void;
    readonly cpu_logitsPointer: (a: number) => number;
    readonly cpu_logitsStride: (a: number) => number;
    readonly cpu_mix: (a: number, b: number) => void;
    readonly cpu_new: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
    readonly cpu_nonFinite: (a: number) => [number, number];
    readonly cpu_poolPointer: (a: number) => number;
    readonly cpu_recurrentState: (a: number, b: number, c: number) => [number, number];
    readonly cpu_residual: (a: number) => [number, number];
    readonly cpu_routedExperts: (a: number) => [number, number];
    readonly cpu_routedWeights: (a: number) => [number, number];
    readonly cpu_stopHelpers: (a: number) => void;
    readonly cpu_takeExpertUse: (a: number) => [number, number];
    readonly cpu_write: (a: number, b: number, c: number, d: number, e: number, f: number, g: number) => void;
    readonly cpu_writeGroupScales: (a: number, b: number, c: number, d: number, e: number, f: number, g: number) => void;
    readonly cpu_writeScales: (a: number, b: number, c: number, d: number, e: number, f: number) => void;
    readonly cpu_zeroSlot: (a: number, b: number) => void;
    readonly helper_help: (a: number) => number;
    readonly helper_new: (a: number, b: number) => number;
    readonly matrixBytes: (a: number, b: number, c: number, d: number) => number;
    readonly memory: WebAssembly.Memory;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_thread_destroy: (a?: number, b?: number, c?: number) => void;
    readonly __wbindgen_start: (a: number) => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput, memory?: WebAssembly.Memory, thread_stack_size?: number }} module - Passing `SyncInitInput` directly is deprecated.
 * @param {WebAssembly.Memory} memory - Deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput, memory?: WebAssembly.Memory, thread_stack_size?: number } | SyncInitInput, memory?: WebAssembly.Memory): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput>, memory?: WebAssembly.Memory, thread_stack_size?: number }} module_or_path - Passing `InitInput` directly is deprecated.
 * @param {WebAssembly.Memory} memory - Deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput>, memory?: WebAssembly.Memory, thread_stack_size?: number } | InitInput | Promise<InitInput>, memory?: WebAssembly.Memory): Promise<InitOutput>;
