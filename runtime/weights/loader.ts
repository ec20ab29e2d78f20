/** Streams the weights of a checked model folder into a device, a few MiB at a time. */

import { Quantizer, rowsPerPiece, scaleRowsPerPiece, UnstorableRow } from "../../wasm/quantizer.ts";
import { LOAD_PIECE_BYTES, READ_AHEAD_WEIGHT_BYTES } from "../limits.ts";
import type { Device, TensorSpec } from "../model/device.ts";
import { refuse } from "../wording.ts";
import type { ModelFolder } from "./model_folder.ts";
import { GROUP_COLUMNS, readAction } from "./packed.ts";
import { PieceReader } from "./piece_reader.ts";
import type { PlannedPart } from "./plan.ts";
import { type ResidentWeight, residentWeights } from "./resident.ts";
import type { StoredTensor } from "./safetensors.ts";
import { storedElementBytes, widen } from "./widen.ts";

export interface LoadReport {
  /** Bytes read: all weights and scales as stored. */
  readonly bytes: number;
  readonly seconds: number;
  /** Most bytes that the loader's buffers held at one time. */
  readonly peakBufferBytes: number;
}

export type WeightTarget = Pick<Device, "declare" | "write" | "writeScales" | "writeGroupScales">;

/** One matrix to be read. */
interface Job {
  readonly weight: ResidentWeight;
  readonly matrix: number;
  readonly part: PlannedPart;
}

/**
 * Declares every weight, then writes them in the order of the files' bytes, rounded on the way
 * where the device is to hold integers. `progress` gets the bytes read so far and in all. Rejects
 * with a ModelError where a file has changed since it was checked or a scale isn't finite; the
 * device is then half filled and has to be destroyed.
 */
// deno-lint-ignore require-await
export async function loadWeights(
  folder: ModelFolder,
  device: WeightTarget,
  progress: (done: number, total: number) => void = () => {},
  weights: readonly ResidentWeight[] = residentWeights(folder.tensors.weights, "file"),
  readsAhead = folder.weightBytes > READ_AHEAD_WEIGHT_BYTES,
): Promise<LoadReport> {
  const started = performance.now();
  device.declare(weights.map(({ spec }) => spec));
  const byFile = new Map<string, Job[]>();
  for (const weight of weights) {
    weight.parts.forEach((part, matrix) => {
      const jobs = byFile.get(part.tensor.file) ?? [];
      byFile.set(part.tensor.file, jobs);
      jobs.push({ weight, matrix, part });
    });
  }
  const jobs = [...byFile.values()].flatMap((ofFile) =>
    ofFile.sort((a, b) => a.part.tensor.begin - b.part.tensor.begin)
  );
  const reader = new PieceReader(folder, readsAhead ? jobs.flatMap(readsOf) : null, progress);
  const loader = new MatrixLoader(reader, device);
  try {
    for (const job of jobs) loader.load(job);
  } finally {
    reader.close();
    loader.close();
  }
  const seconds = (performance.now() - started) / 1000;
  return { bytes: reader.doneBytes, seconds, peakBufferBytes: loader.peakBufferBytes };
}

/** What `MatrixLoader.load` reads for one matrix, in its order. */
function readsOf({ weight: { spec, stored }, part }: Job): [StoredTensor, number][] {
  const { tensor, scale, shape } = part;
  const quantizes = spec.format !== stored.format;
  const reads: [StoredTensor, number][] = [[tensor, elementPieceBytes(spec, stored, tensor)]];
  if (shape !== null) reads.unshift([shape, LOAD_PIECE_BYTES]);
  if (scale === null) return reads;
  if (quantizes) return [[scale, LOAD_PIECE_BYTES], ...reads];
  const grouped = stored.format === "q8" || stored.format === "q4";
  return [...reads, [scale, grouped ? scalePieceBytes(spec, scale) : LOAD_PIECE_BYTES]];
}

/** Bytes of a piece of elements: whole rows where they are rounded. */
function elementPieceBytes(spec: TensorSpec, stored: TensorSpec, tensor: StoredTensor): number {
  if (spec.format === stored.format) return LOAD_PIECE_BYTES;
  const format = stored.format as "f32" | "f16" | "bf16" | "fp8";
  const rowBytes = stored.columns * storedElementBytes(tensor.type);
  return rowBytes * rowsPerPiece(LOAD_PIECE_BYTES, format, stored.columns);
}

/** Bytes of a piece of group scales: whole rows. */
function scalePieceBytes({ columns }: TensorSpec, scale: StoredTensor): number {
  const groups = columns / GROUP_COLUMNS;
  return groups * storedElementBytes(scale.type) * scaleRowsPerPiece(LOAD_PIECE_BYTES, groups);
}

/** Brings matrices from files to the device through buffers that are reused. */
class MatrixLoader {
  peakBufferBytes = 0;
  #quantizer: Quantizer | null = null;

  constructor(private readonly reader: PieceReader, private readonly device: WeightTarget) {
    this.#noteBuffers(0);
  }

  load({ weight: { spec, stored }, matrix, part }: Job): void {
    const { tensor, scale, shape } = part;
    if (shape !== null) this.#checkShape(shape, stored);
    if (spec.format !== stored.format) return this.#quantize(spec, stored, matrix, part);
    // Only keys that Kedge keeps as f32 differ from the file.
    if (spec.format === "f32" && tensor.type !== "F32") this.#widen(spec, matrix, tensor);
    else this.#read(tensor, (bytes, offset) => this.device.write(spec.key, matrix, offset, bytes));
    if (scale === null) return;
    if (spec.format === "fp8") {
      this.device.writeScales(spec.key, matrix, this.#readFp8Scales(scale));
    } else this.#copyGroupScales(spec, matrix, scale);
  }

  close(): void {
    this.#quantizer?.free();
  }

  #read(tensor: StoredTensor, take: (bytes: Uint8Array, offset: number) => void): void {
    this.reader.read(tensor, LOAD_PIECE_BYTES, null, take);
  }

  #widen({ key }: TensorSpec, matrix: number, tensor: StoredTensor): void {
    const elementBytes = storedElementBytes(tensor.type);
    this.#read(tensor, (bytes, offset) => {
      const values = widen(bytes, tensor.type);
      this.#noteBuffers(values.byteLength);
      const target = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      this.device.write(key, matrix, offset / elementBytes * 4, target);
    });
  }

  /** The file names the matrix's sizes once more. */
  #checkShape(shape: StoredTensor, { rows, columns }: TensorSpec): void {
    this.#read(shape, (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const size = bytes.length / 2;
      const [first, second] = [0, size].map((at) =>
        size === 8 ? view.getBigInt64(at, true) : view.getInt32(at, true)
      );
      if (Number(first) === rows && Number(second) === columns) return;
      refuse(readAction(shape), `${rows} and ${columns}`, `${first} and ${second}`);
    });
  }

  /** All scales of one fp8 matrix as f32. Throws ModelError where one is NaN or infinite. */
  #readFp8Scales(scale: StoredTensor): Float32Array {
    const scales = new Float32Array(scale.elementCount);
    const elementBytes = storedElementBytes(scale.type);
    this.#read(scale, (bytes, offset) => {
      const values = widen(bytes, scale.type);
      this.#noteBuffers(scales.byteLength + values.byteLength);
      scales.set(values, offset / elementBytes);
    });
    const bad = scales.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) refuse(readAction(scale), "finite scales", `${scales[bad]} at element ${bad}`);
    return scales;
  }

  #quantize(spec: TensorSpec, stored: TensorSpec, matrix: number, part: PlannedPart): void {
    const { tensor, scale } = part;
    const { key, columns } = spec;
    const format = stored.format as "f32" | "f16" | "bf16" | "fp8";
    const quantizer = this.#startQuantizer();
    if (scale !== null) quantizer.setScales(this.#readFp8Scales(scale));
    const rowBytes = columns * storedElementBytes(tensor.type);
    const bits = spec.format === "q4" ? 4 : 8;
    const groups = Math.ceil(columns / GROUP_COLUMNS);
    this.reader.read(
      tensor,
      elementPieceBytes(spec, stored, tensor),
      (bytes) => quantizer.input(bytes),
      (bytes, offset) => {
        const [row, rows] = [offset / rowBytes, bytes.length / rowBytes];
        const source = { format, columns, scale: stored.scale };
        const { elements, scales } = storable(
          tensor,
          () => quantizer.quantize(source, bits, row, rows),
        );
        this.device.write(key, matrix, row * groups * GROUP_COLUMNS * bits / 8, elements);
        this.device.writeGroupScales(key, matrix, row * scales.length / rows, scales);
      },
    );
  }

  #copyGroupScales(spec: TensorSpec, matrix: number, scale: StoredTensor): void {
    const { key, columns } = spec;
    const quantizer = this.#startQuantizer();
    const format = SCALE_FORMATS[scale.type as keyof typeof SCALE_FORMATS];
    const groups = columns / GROUP_COLUMNS;
    const rowBytes = groups * storedElementBytes(scale.type);
    this.reader.read(
      scale,
      scalePieceBytes(spec, scale),
      (bytes) => quantizer.input(bytes),
      (bytes, offset) => {
        const [row, rows] = [offset / rowBytes, bytes.length / rowBytes];
        const scales = storable(
          scale,
          () => quantizer.convertScales(format, groups, row, rows),
        );
        this.device.writeGroupScales(key, matrix, row * scales.length / rows, scales);
      },
    );
  }

  #startQuantizer(): Quantizer {
    this.#quantizer ??= new Quantizer(LOAD_PIECE_BYTES);
    this.#noteBuffers(0);
    return this.#quantizer;
  }

  /** Counts what is held now, with `others` bytes beside the buffers that stay. */
  #noteBuffers(others: number): void {
    const held = this.reader.bufferBytes + others + (this.#quantizer?.bufferBytes ?? 0);
    this.peakBufferBytes = Math.max(this.peakBufferBytes, held);
  }
}

const SCALE_FORMATS = { F32: "f32", F16: "f16", BF16: "bf16" } as const;

/** What `make` makes; values that can't be stored are the file's fault. Throws ModelError. */
function storable<T>(tensor: StoredTensor, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof UnstorableRow)) throw error;
    const wanted = "finite values that a scale in f16 can hold";
    return refuse(readAction(tensor), wanted, `others in row ${error.row}`);
  }
}
