/** `kedge synth`: a model folder with random weights, to measure without the real ones. */
import { UsageError } from "../errors.ts";
import { parseJsonObject } from "../json_text.ts";
import { createProgress } from "../weights/progress.ts";
import type { WeightChoice } from "../weights/resident.ts";
import { writeSyntheticFolder } from "../weights/synthetic_folder.ts";
import { readShapeConfig } from "./bench_synthetic.ts";

export interface SynthOptions {
  /** A shape by name, or a config.json. */
  readonly shape: string;
  readonly format: WeightChoice;
  readonly seed: number;
  readonly skew: number;
}

/** Throws UsageError when the folder exists, and what writeSyntheticFolder throws. */
export function synth(directory: string, options: SynthOptions): void {
  const { shape, format, seed, skew } = options;
  const config = parseJsonObject(readShapeConfig("--shape", shape), `read "${shape}"`);
  if (exists(directory)) {
    throw new UsageError(`write "${directory}": wanted no such file or folder, found one`);
  }
  const progress = createProgress(`write ${directory}`);
  const began = performance.now();
  try {
    const bytes = writeSyntheticFolder(config, directory, format, { seed, skew }, progress.update);
    progress.finish(bytes, (performance.now() - began) / 1_000);
  } catch (error) {
    progress.clear();
    throw error;
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw new UsageError(`write "${path}": wanted a folder to be made, found ${error}`);
  }
}
