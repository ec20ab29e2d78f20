/** Streams the weights of a checked model folder into a device, a few MiB at a time. */

import { ModelError } from "../errors.ts";
import { LOAD_PIECE_BYTES } from "../limits.ts";
import type { Device, TensorSpec } from "../model/device.ts";
import { FolderFiles, readFully } from "./folder_files.ts";
import type { ModelFolder } from "./model_folder.ts";
import type { PlannedPart } from "./plan.ts";
import type { StoredTensor } from "./safetensors.ts";
import { quote, refuse } from "../wording.ts";
import { storedElementBytes, widen } from "./widen.ts";

export interface LoadReport {
  /** Bytes read: all weights and scales as stored. */
  readonly bytes: number;
  readonly seconds: number;
  /** Most bytes that the loader's buffers held at one time. */
  readonly peakBufferBytes: number;
}

type WeightTarget = Pick<Device, "declare" | "write" | "writeScales" | "writeGroupScales">;

/** One matrix to be read. */
interface Job {
  readonly spec: TensorSpec;
  readonly matrix: number;
  readonly part: PlannedPart;
}

/**
 * Declares every weight, then writes them in the order of the files' bytes. `progress` gets the
 * bytes read so far and in all. Rejects with a ModelError where a file has changed since it was
 * checked or a scale isn't finite; the device is then half filled and has to be destroyed.
 */
// deno-lint-ignore require-await
export async function loadWeights(
  folder: ModelFolder,
  device: WeightTarget,
  progress: (done: number, total: number) => void = () => {},
): Promise<LoadReport> {
  const started = performance.now();
  const { weights } = folder.tensors;
  device.declare(weights.map(({ spec }) => spec));
  const byFile = new Map<string, Job[]>();
  for (const { spec, parts } of weights) {
    parts.forEach((part, matrix) => {
      const jobs = byFile.get(part.tensor.file) ?? [];
      byFile.set(part.tensor.file, jobs);
      jobs.push({ spec, matrix, part });
    });
  }
  const files = new OpenFiles(folder);
  const reader = new PieceReader(files, folder.weightBytes, progress);
  try {
    for (const jobs of byFile.values()) {
      jobs.sort((a, b) => a.part.tensor.begin - b.part.tensor.begin);
      for (const job of jobs) loadMatrix(job, reader, device);
    }
  } finally {
    files.close();
  }
  const seconds = (performance.now() - started) / 1000;
  return { bytes: reader.doneBytes, seconds, peakBufferBytes: reader.peakBufferBytes };
}

function loadMatrix({ spec, matrix, part }: Job, reader: PieceReader, device: WeightTarget): void {
  const { tensor, scale } = part;
  const elementBytes = storedElementBytes(tensor.type);
  // Only keys that Kedge keeps as f32 differ from the file.
  const widened = spec.format === "f32" && elementBytes !== 4;
  reader.read(tensor, (bytes, offset) => {
    if (!widened) return device.write(spec.key, matrix, offset, bytes);
    const values = widen(bytes, tensor.type);
    reader.noteBuffer(values.byteLength);
    const target = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    device.write(spec.key, matrix, offset / elementBytes * 4, target);
  });
  if (scale !== null) device.writeScales(spec.key, matrix, readScales(scale, reader));
}

/** All scales of one matrix as f32. Throws ModelError where one is NaN or infinite. */
function readScales(scale: StoredTensor, reader: PieceReader): Float32Array {
  const scales = new Float32Array(scale.elementCount);
  const elementBytes = storedElementBytes(scale.type);
  reader.read(scale, (bytes, offset) => {
    const values = widen(bytes, scale.type);
    reader.noteBuffer(scales.byteLength + values.byteLength);
    scales.set(values, offset / elementBytes);
  });
  const bad = scales.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    const action = `read tensor ${quote(scale.name)} in ${quote(scale.file)}`;
    refuse(action, "finite scales", `${scales[bad]} at element ${bad}`);
  }
  return scales;
}

/** Opens each file once and checks that it is still as long as its header was checked for. */
class OpenFiles {
  private readonly files: FolderFiles;
  private readonly open = new Map<string, Deno.FsFile>();

  constructor(private readonly folder: ModelFolder) {
    this.files = FolderFiles.open(folder.directory);
  }

  get(name: string): Deno.FsFile {
    const known = this.open.get(name);
    if (known !== undefined) return known;
    const { file, size } = this.files.openFile(name);
    this.open.set(name, file);
    const wanted = this.folder.fileBytes.get(name)!;
    if (size !== wanted) refuse(`read ${quote(name)}`, `${wanted} bytes as before`, `${size}`);
    return file;
  }

  close(): void {
    for (const file of this.open.values()) file.close();
    this.open.clear();
  }
}

/** Reads tensors through one reused buffer and counts. */
class PieceReader {
  doneBytes = 0;
  peakBufferBytes: number;
  private readonly buffer: Uint8Array<ArrayBuffer>;

  constructor(
    private readonly files: OpenFiles,
    private readonly totalBytes: number,
    private readonly progress: (done: number, total: number) => void,
  ) {
    this.buffer = new Uint8Array(Math.min(LOAD_PIECE_BYTES, Math.max(totalBytes, 1)));
    this.peakBufferBytes = this.buffer.length;
  }

  /** Hands `take` the tensor's bytes in order; each piece is valid until `take` returns. */
  read(tensor: StoredTensor, take: (bytes: Uint8Array, offset: number) => void): void {
    const file = this.files.get(tensor.file);
    for (let offset = 0; offset < tensor.byteLength; offset += this.buffer.length) {
      const length = Math.min(this.buffer.length, tensor.byteLength - offset);
      const piece = this.buffer.subarray(0, length);
      if (!this.fill(file, tensor, offset, piece)) {
        const action = `read tensor ${quote(tensor.name)} in ${quote(tensor.file)}`;
        refuse(action, `${tensor.byteLength} bytes`, "the end of the file");
      }
      take(piece, offset);
      this.doneBytes += length;
      this.progress(this.doneBytes, this.totalBytes);
    }
  }

  /** Records what is held beside the reused buffer. */
  noteBuffer(bytes: number): void {
    this.peakBufferBytes = Math.max(this.peakBufferBytes, this.buffer.length + bytes);
  }

  private fill(file: Deno.FsFile, tensor: StoredTensor, offset: number, piece: Uint8Array) {
    try {
      return readFully(file, tensor.begin + offset, piece);
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      const action = `read tensor ${quote(tensor.name)} in ${quote(tensor.file)}`;
      throw new ModelError(`${action}: wanted its bytes, found ${quote(fault)}`);
    }
  }
}
