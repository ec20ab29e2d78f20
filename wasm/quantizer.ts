/**
 * Rounds stored weights to q8 and q4, and turns stored scales into f16: pieces of files are read
 * into the module's memory, and what comes out is a view of it.
 */
import * as wasm from "./quantize/pkg/kedge_quantize.js";

/** What rows can be rounded from; fp8 is e4m3 with a scale grid. */
export type SourceFormat = "f32" | "f16" | "bf16" | "fp8";

/** Columns that share a scale. */
const GROUP = 32;
const SOURCE_NUMBERS: Readonly<Record<SourceFormat, number>> = { f32: 0, f16: 1, bf16: 2, fp8: 3 };
const SOURCE_BYTES: Readonly<Record<SourceFormat, number>> = { f32: 4, f16: 2, bf16: 2, fp8: 1 };

let memory: WebAssembly.Memory | null = null;

/** Rows as the device takes them; valid until the next call. */
export interface QuantizedRows {
  /** q8: [rows][groups][32] signed bytes; q4: [rows][groups][16], even columns low, q + 8. */
  readonly elements: Uint8Array<ArrayBuffer>;
  /** f16 bits, little-endian, [rows][groups rounded up to an even count]. */
  readonly scales: Uint8Array<ArrayBuffer>;
}

/** The matrix that pieces of rows are taken from. */
export interface RowSource {
  readonly format: SourceFormat;
  readonly columns: number;
  /** fp8 only: sides of a block that shares a scale. */
  readonly scale: { readonly rowsPerScale: number; readonly columnsPerScale: number } | null;
}

/** A value or a scale that f16 scales can't express. */
export class UnstorableRow extends Error {
  constructor(readonly row: number) {
    super(`store row ${row}: wanted finite values that an f16 scale can hold`);
  }
}

/** Rows of `columns` columns that a piece can hold, as stored and as rounded. */
export function rowsPerPiece(pieceBytes: number, format: SourceFormat, columns: number): number {
  const padded = GROUP * Math.ceil(columns / GROUP);
  return Math.floor(pieceBytes / Math.max(columns * SOURCE_BYTES[format], padded));
}

/** Rows of `groups` scales that a piece can hold. */
export function scaleRowsPerPiece(pieceBytes: number, groups: number): number {
  return Math.floor(pieceBytes / (GROUP * (groups + 1)));
}

export class Quantizer {
  readonly #quantizer: wasm.Quantizer;

  /** Buffers for pieces of at most `pieceBytes` bytes of a file, reused by every call. */
  constructor(private readonly pieceBytes: number) {
    if (memory === null) {
      const file = new URL("./quantize/pkg/kedge_quantize_bg.wasm", import.meta.url);
      memory = wasm.initSync({ module: Deno.readFileSync(file) }).memory;
    }
    this.#quantizer = new wasm.Quantizer(pieceBytes);
  }

  /** Bytes that the buffers for pieces, elements and scales take. */
  get bufferBytes(): number {
    return Math.ceil(this.pieceBytes * (2 + 4 / GROUP));
  }

  /** Where the next `bytes` bytes of a file are to be put. */
  input(bytes: number): Uint8Array<ArrayBuffer> {
    return view(this.#quantizer.input_address(), bytes);
  }

  /** The scale grid of the fp8 matrix that comes next. */
  setScales(scales: Float32Array): void {
    this.#quantizer.set_fp8_scales(scales);
  }

  /**
   * Rounds the `rows` rows in `input`, the first of which is row `firstRow` of its matrix. Throws
   * UnstorableRow.
   */
  quantize(source: RowSource, bits: 8 | 4, firstRow: number, rows: number): QuantizedRows {
    const { format, columns, scale } = source;
    const { rowsPerScale, columnsPerScale } = scale ?? { rowsPerScale: 1, columnsPerScale: 1 };
    const number = SOURCE_NUMBERS[format];
    checkStored(
      this.#quantizer.quantize(
        number,
        bits,
        firstRow,
        rows,
        columns,
        rowsPerScale,
        columnsPerScale,
      ),
    );
    const groups = Math.ceil(columns / GROUP);
    return {
      elements: view(this.#quantizer.elements_address(), rows * groups * GROUP * bits / 8),
      scales: this.#scales(rows, groups),
    };
  }

  /**
   * The `rows` rows of `groups` scales in `input` as the device takes them. Throws UnstorableRow.
   */
  convertScales(
    format: "f32" | "f16" | "bf16",
    groups: number,
    firstRow: number,
    rows: number,
  ): Uint8Array<ArrayBuffer> {
    checkStored(
      this.#quantizer.convert_scales(SOURCE_NUMBERS[format], firstRow, rows, groups),
    );
    return this.#scales(rows, groups);
  }

  #scales(rows: number, groups: number): Uint8Array<ArrayBuffer> {
    return view(this.#quantizer.scales_address(), rows * 4 * Math.ceil(groups / 2));
  }

  free(): void {
    this.#quantizer.free();
  }
}

/** Memory may have grown since the last call, so views are made anew. */
function view(address: number, bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(memory!.buffer as ArrayBuffer, address, bytes);
}

function checkStored(row: number): void {
  if (row >= 0) throw new UnstorableRow(row);
}
