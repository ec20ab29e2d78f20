/** Reads tensors of checked files piece by piece. */

import { ModelError } from "../errors.ts";
import { LOAD_PIECE_BYTES } from "../limits.ts";
import { quote, refuse } from "../wording.ts";
import { FolderFiles, readFully } from "./folder_files.ts";
import type { ModelFolder } from "./model_folder.ts";
import { readAction } from "./packed.ts";
import { ReadAhead } from "./read_ahead.ts";
import type { PieceRead } from "./read_protocol.ts";
import type { StoredTensor } from "./safetensors.ts";

/** A file that was opened and is still as long as its header was checked for. */
interface OpenFile {
  readonly path: string;
  readonly file: Deno.FsFile;
}

class OpenFiles {
  private readonly files: FolderFiles;
  private readonly open = new Map<string, OpenFile>();

  constructor(private readonly folder: ModelFolder) {
    this.files = FolderFiles.open(folder.directory);
  }

  get(name: string): OpenFile {
    const known = this.open.get(name);
    if (known !== undefined) return known;
    const { path } = this.files.find(name);
    const { file, size } = this.files.openFile(name);
    const opened = { path, file };
    this.open.set(name, opened);
    const wanted = this.folder.fileBytes.get(name)!;
    if (size !== wanted) refuse(`read ${quote(name)}`, `${wanted} bytes as before`, `${size}`);
    return opened;
  }

  close(): void {
    for (const { file } of this.open.values()) file.close();
    this.open.clear();
  }
}

/** Tensors in the order in which they will be read, and in pieces of how many bytes. */
export type ReadingOrder = readonly (readonly [tensor: StoredTensor, pieceBytes: number])[];

/** Reads and counts. */
export class PieceReader {
  doneBytes = 0;
  private readonly files: OpenFiles;
  private readonly buffer = new Uint8Array(LOAD_PIECE_BYTES);
  private ahead: ReadAhead | null = null;

  /** `order`: what will be read, by a thread of its own; null to read here. */
  constructor(
    folder: ModelFolder,
    order: ReadingOrder | null,
    private readonly progress: (done: number, total: number) => void,
    private readonly totalBytes = folder.weightBytes,
  ) {
    this.files = new OpenFiles(folder);
    if (order === null) return;
    const reads: PieceRead[] = [];
    for (const [tensor, pieceBytes] of order) {
      const { path } = this.files.get(tensor.file);
      for (let at = 0; at < tensor.byteLength; at += pieceBytes) {
        const length = Math.min(pieceBytes, tensor.byteLength - at);
        reads.push({ path, offset: tensor.begin + at, length });
      }
    }
    this.ahead = new ReadAhead(reads);
  }

  get bufferBytes(): number {
    return this.buffer.length + (this.ahead === null ? 0 : ReadAhead.bufferBytes);
  }

  /**
   * Hands `take` the tensor's bytes in order and in pieces of `pieceBytes`, where `place` says or
   * anywhere; a piece is valid until `take` returns. Throws ModelError.
   */
  read(
    tensor: StoredTensor,
    pieceBytes: number,
    place: ((bytes: number) => Uint8Array) | null,
    take: (bytes: Uint8Array, offset: number) => void,
  ): void {
    const { path, file } = this.files.get(tensor.file);
    for (let offset = 0; offset < tensor.byteLength; offset += pieceBytes) {
      const length = Math.min(pieceBytes, tensor.byteLength - offset);
      let piece = this.ahead?.next(path, tensor.begin + offset, length) ?? null;
      if (piece === null) {
        this.#stopAhead();
        piece = place?.(length) ?? this.buffer.subarray(0, length);
        this.#fill(file, tensor, offset, piece);
      } else if (place !== null) {
        const target = place(length);
        target.set(piece);
        piece = target;
      }
      take(piece, offset);
      this.doneBytes += length;
      this.progress(this.doneBytes, this.totalBytes);
    }
  }

  close(): void {
    this.#stopAhead();
    this.files.close();
  }

  #stopAhead(): void {
    this.ahead?.close();
    this.ahead = null;
  }

  #fill(file: Deno.FsFile, tensor: StoredTensor, offset: number, piece: Uint8Array): void {
    let complete: boolean;
    try {
      complete = readFully(file, tensor.begin + offset, piece);
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      throw new ModelError(`${readAction(tensor)}: wanted its bytes, found ${quote(fault)}`);
    }
    if (!complete) refuse(readAction(tensor), `${tensor.byteLength} bytes`, "the end of the file");
  }
}
