/* tslint:disable */
/* eslint-disable */
export const memory: WebAssembly.Memory;
export const __wbg_quantizer_free: (a: number, b: number) => void;
export const quantizer_convert_scales: (a: number, b: number, c: number, d: number, e: number) => number;
export const quantizer_elements_address: (a: number) => number;
export const quantizer_input_address: (a: number) => number;
export const quantizer_new: (a: number) => number;
export const quantizer_quantize: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number) => number;
export const quantizer_scales_address: (a: number) => number;
export const quantizer_set_fp8_scales: (a: number, b: number, c: number) => void;
export const __wbindgen_externrefs: WebAssembly.Table;
export const __wbindgen_malloc: (a: number, b: number) => number;
export const __wbindgen_free: (a: number, b: number, c: number) => void;
export const __wbindgen_start: () => void;
