/* tslint:disable */
/* eslint-disable */

export class Decoding {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    flush(): string;
    push(id: number): string;
}

/**
 * The encoding of one text: reserve, write UTF-8 at `text_address`, begin, step until true, read.
 */
export class Encoding {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * The text is the first `byte_length` bytes of what is reserved.
     */
    begin(byte_length: number, allow_special: boolean): void;
    ids_address(): number;
    ids_length(): number;
    reserve(byte_length: number): void;
    /**
     * Encodes about `bytes_max` bytes more; true when all are done.
     */
    step(bytes_max: number): boolean;
    text_address(): number;
}

export class Router {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Counts, offsets and order, one after the other.
     */
    group(experts: Uint32Array | number[]): Uint32Array;
    constructor(expert_count: number, experts_per_token: number);
    select(scores: Float32Array | number[], bias: Float32Array | number[], renormalize: boolean, scale: number): Selection;
    take_uses(): Uint32Array;
}

export class Sampler {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * From the best of a row of the sampler's size, in order; -1 when it takes the whole row.
     * `log_total`: ln of the sum of exp(logit / temperature) over the row.
     */
    choose(ids: Uint32Array | number[], logits: Float32Array | number[], log_total: number, temperature: number, top_k: number, typical_p: number, top_p: number, min_p: number, seed: number, position: number): number;
    /**
     * Log-probability of `id`, then pairs of the `count` best ids and theirs.
     */
    logprobs(id: number, count: number): Float64Array;
    constructor(size: number);
    row_address(): number;
    sample(temperature: number, top_k: number, typical_p: number, top_p: number, min_p: number, seed: number, position: number): number;
}

export class Selection {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    take_experts(): Uint32Array;
    take_weights(): Float32Array;
}

export class Tokenizer {
    free(): void;
    [Symbol.dispose](): void;
    decode(ids: Uint32Array | number[], skip_special: boolean): string;
    is_skipped(id: number): boolean;
    /**
     * `ids`, `texts` and `skipped` are of one length.
     */
    constructor(file: Uint8Array | number[], ids: Uint32Array | number[], texts: string[], skipped: Uint8Array | number[], size: number);
    rank_count(): number;
    special_id(text: string): number | undefined;
    start_decoding(skip_special: boolean): Decoding;
    start_encoding(byte_length: number): Encoding;
    token_bytes(id: number): Uint8Array;
}

/**
 * Ends of the pieces, in bytes, that the split rule cuts `text` into, without slices.
 */
export function piece_ends(text: Uint8Array | number[]): Uint32Array;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_decoding_free: (a: number, b: number) => void;
    readonly __wbg_encoding_free: (a: number, b: number) => void;
    readonly __wbg_router_free: (a: number, b: number) => void;
    readonly __wbg_sampler_free: (a: number, b: number) => void;
    readonly __wbg_selection_free: (a: number, b: number) => void;
    readonly __wbg_tokenizer_free: (a: number, b: number) => void;
    readonly decoding_flush: (a: number) => [number, number];
    readonly decoding_push: (a: number, b: number) => [number, number, number, number];
    readonly encoding_begin: (a: number, b: number, c: number) => void;
    readonly encoding_ids_address: (a: number) => number;
    readonly encoding_ids_length: (a: number) => number;
    readonly encoding_reserve: (a: number, b: number) => void;
    readonly encoding_step: (a: number, b: number) => number;
    readonly encoding_text_address: (a: number) => number;
    readonly piece_ends: (a: number, b: number) => [number, number];
    readonly router_group: (a: number, b: number, c: number) => [number, number, number, number];
    readonly router_new: (a: number, b: number) => [number, number, number];
    readonly router_select: (a: number, b: number, c: number, d: number, e: number, f: number, g: number) => [number, number, number];
    readonly router_take_uses: (a: number) => [number, number];
    readonly sampler_choose: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number, j: number, k: number, l: number, m: number) => number;
    readonly sampler_logprobs: (a: number, b: number, c: number) => [number, number, number, number];
    readonly sampler_new: (a: number) => number;
    readonly sampler_row_address: (a: number) => number;
    readonly sampler_sample: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number) => [number, number, number];
    readonly selection_take_experts: (a: number) => [number, number];
    readonly selection_take_weights: (a: number) => [number, number];
    readonly tokenizer_decode: (a: number, b: number, c: number, d: number) => [number, number, number, number];
    readonly tokenizer_is_skipped: (a: number, b: number) => number;
    readonly tokenizer_new: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number) => [number, number, number];
    readonly tokenizer_rank_count: (a: number) => number;
    readonly tokenizer_special_id: (a: number, b: number, c: number) => number;
    readonly tokenizer_start_decoding: (a: number, b: number) => number;
    readonly tokenizer_start_encoding: (a: number, b: number) => number;
    readonly tokenizer_token_bytes: (a: number, b: number) => [number, number, number, number];
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __externref_drop_slice: (a: number, b: number) => void;
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
