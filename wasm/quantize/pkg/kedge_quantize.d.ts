/* tslint:disable */
/* eslint-disable */

export class Quantizer {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Turns `rows` rows of `groups` scales of type `source` (0 f32, 1 f16, 2 bf16) into f16, rows
     * padded to an even count. Returns the row that holds one which f16 can't hold, or -1.
     */
    convert_scales(source: number, first_row: number, rows: number, groups: number): number;
    elements_address(): number;
    input_address(): number;
    /**
     * Buffers for pieces of `piece_bytes`, whatever their format and columns.
     */
    constructor(piece_bytes: number);
    /**
     * Rounds `rows` rows of `columns` columns, the first of which is `first_row` of its matrix.
     * `source`: 0 f32, 1 f16, 2 bf16, 3 fp8. `bits`: 8 or 4. Returns the row that holds a value
     * which isn't finite or is too large for an f16 scale, or -1.
     */
    quantize(source: number, bits: number, first_row: number, rows: number, columns: number, rows_per_scale: number, columns_per_scale: number): number;
    scales_address(): number;
    /**
     * The scale grid of the fp8 matrix that comes next.
     */
    set_fp8_scales(scales: Float32Array | number[]): void;
}

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_quantizer_free: (a: number, b: number) => void;
    readonly quantizer_convert_scales: (a: number, b: number, c: number, d: number, e: number) => number;
    readonly quantizer_elements_address: (a: number) => number;
    readonly quantizer_input_address: (a: number) => number;
    readonly quantizer_new: (a: number) => number;
    readonly quantizer_quantize: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number) => number;
    readonly quantizer_scales_address: (a: number) => number;
    readonly quantizer_set_fp8_scales: (a: number, b: number, c: number) => void;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
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
