/** Files of a model folder: found by plain names, never through a link that leaves the folder. */

import { ModelError } from "../errors.ts";
import { clean, quote, refuse } from "../wording.ts";

/** A folder whose own path may go through links; its files may not leave where that path ends. */
export class FolderFiles {
  private constructor(readonly directory: string, private readonly real: string) {}

  /** The folder's own name, with links in the given path left as they are. */
  get name(): string {
    const parts = this.directory.split("/").filter((part) => part !== "" && part !== ".");
    const last = parts.at(-1);
    if (last !== undefined && last !== "..") return last;
    return this.real.split("/").at(-1) || "model";
  }

  /** Throws ModelError when `directory` is no folder. */
  static open(directory: string): FolderFiles {
    const action = `open model folder ${quote(directory)}`;
    let real: string;
    let info: Deno.FileInfo;
    try {
      real = Deno.realPathSync(directory);
      info = Deno.statSync(real);
    } catch (error) {
      return refuse(action, "a folder", reason(error));
    }
    if (!info.isDirectory) return refuse(action, "a folder", "a file");
    return new FolderFiles(directory, real);
  }

  /** Whether a directory entry of this name exists, of whatever kind. */
  has(name: string): boolean {
    try {
      Deno.lstatSync(`${this.real}/${name}`);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw new ModelError(`read ${quote(name)}: wanted a file, found ${reason(error)}`);
    }
  }

  /** Absolute path and size of the regular file `name`. Throws ModelError. */
  find(name: string): { path: string; size: number } {
    const action = `read ${quote(name)} in ${quote(this.directory)}`;
    let path: string;
    let info: Deno.FileInfo;
    try {
      path = Deno.realPathSync(`${this.real}/${name}`);
      info = Deno.statSync(path);
    } catch (error) {
      return refuse(action, "a file", reason(error));
    }
    const root = this.real.endsWith("/") ? this.real : `${this.real}/`;
    if (!path.startsWith(root)) {
      return refuse(action, "a file inside the model folder", "a link that leaves it");
    }
    if (!info.isFile) return refuse(action, "a file", info.isDirectory ? "a folder" : "no file");
    return { path, size: info.size };
  }

  /** The whole file, which must not exceed `mostBytes`. Throws ModelError. */
  readAll(name: string, mostBytes: number): Uint8Array {
    const { path, size } = this.find(name);
    const action = `read ${quote(name)}`;
    if (size > mostBytes) return refuse(action, `at most ${mostBytes} bytes`, `${size}`);
    try {
      return Deno.readFileSync(path);
    } catch (error) {
      return refuse(action, "a readable file", reason(error));
    }
  }

  /** Opens for reading; the caller closes. Throws ModelError. */
  openFile(name: string): { file: Deno.FsFile; size: number } {
    const { path, size } = this.find(name);
    try {
      return { file: Deno.openSync(path, { read: true }), size };
    } catch (error) {
      return refuse(`read ${quote(name)}`, "a readable file", reason(error));
    }
  }
}

/** Fills `target` from the file's byte `offset`. False when the file ends before. */
export function readFully(file: Deno.FsFile, offset: number, target: Uint8Array): boolean {
  file.seekSync(offset, Deno.SeekMode.Start);
  let filled = 0;
  while (filled < target.length) {
    const count = file.readSync(target.subarray(filled));
    if (count === null || count === 0) return false;
    filled += count;
  }
  return true;
}

/** What the operating system said, in a word or two. */
export function reason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "none";
  if (error instanceof Deno.errors.PermissionDenied) return "no permission";
  if (error instanceof Deno.errors.NotCapable) return "no permission (Deno's)";
  return clean(error instanceof Error ? error.message : String(error));
}
