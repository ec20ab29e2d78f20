/* tslint:disable */
/* eslint-disable */

/**
 * One text's way through a grammar.
 */
export class Matcher {
    free(): void;
    [Symbol.dispose](): void;
    consume(id: number): void;
    /**
     * The tokens that must come next, as far as what follows can't change how text is cut. None
     * before the first token.
     */
    forced(): Uint32Array;
    /**
     * Whether nothing but the end can follow.
     */
    is_over(): boolean;
    /**
     * Computes the next token's mask unless it is known. Bit i % 32 of word i / 32 tells whether
     * token i may come.
     */
    mask_address(): number;
    /**
     * `kind`: "json_schema", "regex" or "lark".
     */
    constructor(vocabulary: Vocabulary, kind: string, source: string);
}

/**
 * The tokens of a model, as a trie, and what all grammars over it share.
 */
export class Vocabulary {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * `bytes`: those of all tokens, one after the other; `lengths`: of each. A token without bytes
     * is never allowed, and one that begins with 0xff is no text.
     */
    constructor(bytes: Uint8Array | number[], lengths: Uint32Array | number[], end: number, encoder: any);
}

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_matcher_free: (a: number, b: number) => void;
    readonly __wbg_vocabulary_free: (a: number, b: number) => void;
    readonly matcher_consume: (a: number, b: number) => [number, number];
    readonly matcher_forced: (a: number) => [number, number];
    readonly matcher_is_over: (a: number) => number;
    readonly matcher_mask_address: (a: number) => [number, number, number];
    readonly matcher_new: (a: number, b: number, c: number, d: number, e: number) => [number, number, number];
    readonly vocabulary_new: (a: number, b: number, c: number, d: number, e: number, f: any) => [number, number, number];
    readonly llg_cancel: (a: number) => void;
    readonly llg_clone_cancellation_handle: (a: number) => number;
    readonly llg_clone_constraint: (a: number) => number;
    readonly llg_clone_matcher: (a: number) => number;
    readonly llg_clone_stop_controller: (a: number) => number;
    readonly llg_commit_token: (a: number, b: number, c: number) => number;
    readonly llg_compute_mask: (a: number, b: number) => number;
    readonly llg_constraint_init_set_defaults: (a: number, b: number) => void;
    readonly llg_decode_tokens: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
    readonly llg_flush_logs: (a: number) => number;
    readonly llg_free_cancellation_handle: (a: number) => void;
    readonly llg_free_constraint: (a: number) => void;
    readonly llg_free_matcher: (a: number) => void;
    readonly llg_free_stop_controller: (a: number) => void;
    readonly llg_free_tokenizer: (a: number) => void;
    readonly llg_get_error: (a: number) => number;
    readonly llg_get_temperature: (a: number) => number;
    readonly llg_get_version: () => number;
    readonly llg_is_stopped: (a: number) => number;
    readonly llg_matcher_compute_ff_tokens: (a: number, b: number, c: number) => number;
    readonly llg_matcher_compute_mask: (a: number) => number;
    readonly llg_matcher_compute_mask_into: (a: number, b: number, c: number) => number;
    readonly llg_matcher_consume_token: (a: number, b: number) => number;
    readonly llg_matcher_consume_tokens: (a: number, b: number, c: number) => number;
    readonly llg_matcher_get_cancellation_handle: (a: number) => number;
    readonly llg_matcher_get_error: (a: number) => number;
    readonly llg_matcher_get_mask: (a: number) => number;
    readonly llg_matcher_get_mask_byte_size: (a: number) => number;
    readonly llg_matcher_is_accepting: (a: number) => number;
    readonly llg_matcher_is_cancelled: (a: number) => number;
    readonly llg_matcher_is_error: (a: number) => number;
    readonly llg_matcher_is_stopped: (a: number) => number;
    readonly llg_matcher_reset: (a: number) => number;
    readonly llg_matcher_rollback: (a: number, b: number) => number;
    readonly llg_matcher_validate_tokens: (a: number, b: number, c: number) => number;
    readonly llg_new_constraint: (a: number, b: number) => number;
    readonly llg_new_constraint_any: (a: number, b: number, c: number) => number;
    readonly llg_new_constraint_json: (a: number, b: number) => number;
    readonly llg_new_constraint_lark: (a: number, b: number) => number;
    readonly llg_new_constraint_regex: (a: number, b: number) => number;
    readonly llg_new_matcher: (a: number, b: number, c: number) => number;
    readonly llg_new_stop_controller: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
    readonly llg_new_tokenizer: (a: number, b: number, c: number) => number;
    readonly llg_new_tokenizer_v2: (a: number, b: number, c: number) => number;
    readonly llg_par_compute_mask: (a: number, b: number, c: number, d: number) => void;
    readonly llg_stop_commit_token: (a: number, b: number, c: number, d: number) => number;
    readonly llg_stringify_tokens: (a: number, b: number, c: number, d: number, e: number) => number;
    readonly llg_tokenize_bytes: (a: number, b: number, c: number, d: number, e: number) => number;
    readonly llg_tokenize_bytes_marker: (a: number, b: number, c: number, d: number, e: number) => number;
    readonly llg_validate_grammar: (a: number, b: number, c: number, d: number, e: number) => number;
    readonly llg_clone_tokenizer: (a: number) => number;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __wbindgen_exn_store: (a: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __externref_table_dealloc: (a: number) => void;
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
