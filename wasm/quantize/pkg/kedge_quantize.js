/* @ts-self-types="./kedge_quantize.d.ts" */

export class Quantizer {
    __destroy_into_raw() {
        const ptr = this.__wbg_ptr;
        this.__wbg_ptr = 0;
        QuantizerFinalization.unregister(this);
        return ptr;
    }
    free() {
        const ptr = this.__destroy_into_raw();
        wasm.__wbg_quantizer_free(ptr, 0);
    }
    /**
     * Turns `rows` rows of `groups` scales of type `source` (0 f32, 1 f16, 2 bf16) into f16, rows
     * padded to an even count. Returns the row that holds one which f16 can't hold, or -1.
     * @param {number} source
     * @param {number} first_row
     * @param {number} rows
     * @param {number} groups
     * @returns {number}
     */
    convert_scales(source, first_row, rows, groups) {
        const ret = wasm.quantizer_convert_scales(this.__wbg_ptr, source, first_row, rows, groups);
        return ret;
    }
    /**
     * @returns {number}
     */
    elements_address() {
        const ret = wasm.quantizer_elements_address(this.__wbg_ptr);
        return ret >>> 0;
    }
    /**
     * @returns {number}
     */
    input_address() {
        const ret = wasm.quantizer_input_address(this.__wbg_ptr);
        return ret >>> 0;
    }
    /**
     * Buffers for pieces of `piece_bytes`, whatever their format and columns.
     * @param {number} piece_bytes
     */
    constructor(piece_bytes) {
        const ret = wasm.quantizer_new(piece_bytes);
        this.__wbg_ptr = ret;
        QuantizerFinalization.register(this, this.__wbg_ptr, this);
        return this;
    }
    /**
     * Rounds `rows` rows of `columns` columns, the first of which is `first_row` of its matrix.
     * `source`: 0 f32, 1 f16, 2 bf16, 3 fp8. `bits`: 8 or 4. Returns the row that holds a value
     * which isn't finite or is too large for an f16 scale, or -1.
     * @param {number} source
     * @param {number} bits
     * @param {number} first_row
     * @param {number} rows
     * @param {number} columns
     * @param {number} rows_per_scale
     * @param {number} columns_per_scale
     * @returns {number}
     */
    quantize(source, bits, first_row, rows, columns, rows_per_scale, columns_per_scale) {
        const ret = wasm.quantizer_quantize(this.__wbg_ptr, source, bits, first_row, rows, columns, rows_per_scale, columns_per_scale);
        return ret;
    }
    /**
     * @returns {number}
     */
    scales_address() {
        const ret = wasm.quantizer_scales_address(this.__wbg_ptr);
        return ret >>> 0;
    }
    /**
     * The scale grid of the fp8 matrix that comes next.
     * @param {Float32Array | number[]} scales
     */
    set_fp8_scales(scales) {
        const ptr0 = passArrayF32ToWasm0(scales, wasm.__wbindgen_malloc);
        const len0 = WASM_VECTOR_LEN;
        wasm.quantizer_set_fp8_scales(this.__wbg_ptr, ptr0, len0);
    }
}
if (Symbol.dispose) Quantizer.prototype[Symbol.dispose] = Quantizer.prototype.free;
function __wbg_get_imports() {
    const import0 = {
        __proto__: null,
        __wbg___wbindgen_throw_4c88d8bf264fd984: function(arg0, arg1) {
            throw new Error(getStringFromWasm0(arg0, arg1));
        },
        __wbindgen_init_externref_table: function() {
            const table = wasm.__wbindgen_externrefs;
            table.set(0, undefined);
            table.set(1024, undefined);
            table.set(1025, null);
            table.set(1026, true);
            table.set(1027, false);
        },
    };
    return {
        __proto__: null,
        "./kedge_quantize_bg.js": import0,
    };
}

const QuantizerFinalization = (typeof FinalizationRegistry === 'undefined')
    ? { register: () => {}, unregister: () => {} }
    : new FinalizationRegistry(ptr => wasm.__wbg_quantizer_free(ptr, 1));

let cachedFloat32ArrayMemory0 = null;
function getFloat32ArrayMemory0() {
    if (cachedFloat32ArrayMemory0 === null || cachedFloat32ArrayMemory0.byteLength === 0) {
        cachedFloat32ArrayMemory0 = new Float32Array(wasm.memory.buffer);
    }
    return cachedFloat32ArrayMemory0;
}

function getStringFromWasm0(ptr, len) {
    ptr = ptr >>> 0;
    return decodeText(getUint8ArrayMemory0().subarray(ptr, ptr + len));
}

let cachedUint8ArrayMemory0 = null;
function getUint8ArrayMemory0() {
    if (cachedUint8ArrayMemory0 === null || cachedUint8ArrayMemory0.byteLength === 0) {
        cachedUint8ArrayMemory0 = new Uint8Array(wasm.memory.buffer);
    }
    return cachedUint8ArrayMemory0;
}

function passArrayF32ToWasm0(arg, malloc) {
    const ptr = malloc(arg.length * 4, 4) >>> 0;
    getFloat32ArrayMemory0().set(arg, ptr / 4);
    WASM_VECTOR_LEN = arg.length;
    return ptr;
}

let cachedTextDecoder = new TextDecoder('utf-8', { ignoreBOM: true });
cachedTextDecoder.decode();
const MAX_SAFARI_DECODE_BYTES = 2146435072;
let numBytesDecoded = 0;
function decodeText(bytes) {
    numBytesDecoded += bytes.length;
    if (numBytesDecoded >= MAX_SAFARI_DECODE_BYTES) {
        cachedTextDecoder = new TextDecoder('utf-8', { ignoreBOM: true });
        cachedTextDecoder.decode();
        numBytesDecoded = bytes.length;
    }
    return cachedTextDecoder.decode(bytes);
}

let WASM_VECTOR_LEN = 0;

let wasmModule, wasmInstance, wasm;
function __wbg_finalize_init(instance, module) {
    wasmInstance = instance;
    wasm = instance.exports;
    wasmModule = module;
    cachedFloat32ArrayMemory0 = null;
    cachedUint8ArrayMemory0 = null;
    wasm.__wbindgen_start();
    return wasm;
}

async function __wbg_load(module, imports) {
    if (typeof Response === 'function' && module instanceof Response) {
        if (!module.ok) {
            throw new Error(`failed to fetch Wasm: ${module.status} ${module.statusText} fetching '${module.url}'`);
        }

        if (typeof WebAssembly.instantiateStreaming === 'function') {
            try {
                return await WebAssembly.instantiateStreaming(module, imports);
            } catch (e) {
                const validResponse = expectedResponseType(module.type);

                if (validResponse && module.headers.get('Content-Type') !== 'application/wasm') {
                    console.warn("`WebAssembly.instantiateStreaming` failed because your server does not serve Wasm with `application/wasm` MIME type. Falling back to `WebAssembly.instantiate` which is slower. Original error:\n", e);

                } else { throw e; }
            }
        }

        const bytes = await module.arrayBuffer();
        return await WebAssembly.instantiate(bytes, imports);
    } else {
        const instance = await WebAssembly.instantiate(module, imports);

        if (instance instanceof WebAssembly.Instance) {
            return { instance, module };
        } else {
            return instance;
        }
    }

    function expectedResponseType(type) {
        switch (type) {
            case 'basic': case 'cors': case 'default': return true;
        }
        return false;
    }
}

function initSync(module) {
    if (wasm !== undefined) return wasm;


    if (module !== undefined) {
        if (Object.getPrototypeOf(module) === Object.prototype) {
            ({module} = module)
        } else {
            console.warn('using deprecated parameters for `initSync()`; pass a single object instead')
        }
    }

    const imports = __wbg_get_imports();
    if (!(module instanceof WebAssembly.Module)) {
        module = new WebAssembly.Module(module);
    }
    const instance = new WebAssembly.Instance(module, imports);
    return __wbg_finalize_init(instance, module);
}

let __wbg_init_promise;
async function __wbg_init(module_or_path) {
    if (wasm !== undefined) return wasm;
    if (__wbg_init_promise === undefined) {
        __wbg_init_promise = __wbg_init_once(module_or_path);
        __wbg_init_promise.catch(() => { __wbg_init_promise = undefined; });
    }
    return __wbg_init_promise;
}

async function __wbg_init_once(module_or_path) {

    if (module_or_path !== undefined) {
        if (Object.getPrototypeOf(module_or_path) === Object.prototype) {
            ({module_or_path} = module_or_path)
        } else {
            console.warn('using deprecated parameters for the initialization function; pass a single object instead')
        }
    }

    if (module_or_path === undefined) {
        module_or_path = new URL('kedge_quantize_bg.wasm', import.meta.url);
    }
    const imports = __wbg_get_imports();

    if (typeof module_or_path === 'string' || (typeof Request === 'function' && module_or_path instanceof Request) || (typeof URL === 'function' && module_or_path instanceof URL)) {
        module_or_path = fetch(module_or_path);
    }

    const { instance, module } = await __wbg_load(await module_or_path, imports);

    return __wbg_finalize_init(instance, module);
}

export { initSync, __wbg_init as default };
