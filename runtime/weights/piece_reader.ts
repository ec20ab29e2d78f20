/** Reads tensors of checked files piece by piece. */

import { ModelError } from "../errors.ts";
import { quote, refuse } from "../wording.ts";
import { FolderFiles, readFully } from "./folder_files.ts";
import type { ModelFolder } from "./model_folder.ts";
import { readAction } from "./packed.ts";
import type { StoredTensor } from "./safetensors.ts";

/** Opens each file once and checks that it is still as long as its header was checked for. */
export class OpenFiles {
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

/** Reads into buffers of whoever asks, and counts. */
export class PieceReader {
  doneBytes = 0;

  constructor(
    private readonly files: OpenFiles,
    private readonly totalBytes: number,
    private readonly progress: (done: number, total: number) => void,
  ) {}

  /**
   * Hands `take` the tensor's bytes in order and in pieces of `pieceBytes`, in the buffer that
   * `buffer` gives for each; a piece is valid until `take` returns.
   */
  read(
    tensor: StoredTensor,
    pieceBytes: number,
    buffer: (bytes: number) => Uint8Array,
    take: (bytes: Uint8Array, offset: number) => void,
  ): void {
    const file = this.files.get(tensor.file);
    for (let offset = 0; offset < tensor.byteLength; offset += pieceBytes) {
      const length = Math.min(pieceBytes, tensor.byteLength - offset);
      const piece = buffer(length);
      if (!this.fill(file, tensor, offset, piece)) {
        refuse(readAction(tensor), `${tensor.byteLength} bytes`, "the end of the file");
      }
      take(piece, offset);
      this.doneBytes += length;
      this.progress(this.doneBytes, this.totalBytes);
    }
  }

  private fill(file: Deno.FsFile, tensor: StoredTensor, offset: number, piece: Uint8Array) {
    try {
      return readFully(file, tensor.begin + offset, piece);
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      throw new ModelError(`${readAction(tensor)}: wanted its bytes, found ${quote(fault)}`);
    }
  }
}
