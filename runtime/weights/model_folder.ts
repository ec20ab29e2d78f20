/** A model folder in the published layout, opened and checked: everything but the weights' data. */

import { MAX_CONFIG_FILE_BYTES } from "../limits.ts";
import { type ModelConfig, parseModelConfig } from "../model/config.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { FolderFiles } from "./folder_files.ts";
import { parseJson } from "../json_text.ts";
import { planWeights, type WeightPlan } from "./plan.ts";
import {
  type GenerationDefaults,
  readGenerationDefaults,
  readTokenizerFiles,
  type TokenizerFiles,
} from "./tokenizer_files.ts";

export { loadWeights } from "./loader.ts";

export interface ModelFolder {
  /** As given. */
  readonly directory: string;
  /** The folder's own name: what clients call the model. */
  readonly id: string;
  readonly config: ModelConfig;
  readonly tokenizer: TokenizerFiles;
  readonly generation: GenerationDefaults;
  readonly tensors: WeightPlan;
  /** Size of each weight file when it was checked. */
  readonly fileBytes: ReadonlyMap<string, number>;
  /** Bytes of all weights and scales as stored. */
  readonly weightBytes: number;
  /** Elements of all weights, scales not counted. */
  readonly parameterCount: number;
}

/** Opens a folder; rejects with a ModelError of one line at the first fault. */
// deno-lint-ignore require-await
export async function openModelFolder(directory: string): Promise<ModelFolder> {
  const files = FolderFiles.open(directory);
  const configBytes = files.readAll("config.json", MAX_CONFIG_FILE_BYTES);
  const config = parseModelConfig(parseJson(configBytes, `read "config.json"`), "config.json");
  const tokenizer = readTokenizerFiles(files, config);
  const generation = readGenerationDefaults(files, config, tokenizer.specials);
  const checkpoint = openCheckpoint(files);
  const tensors = planWeights(config, checkpoint);
  return {
    directory,
    id: files.name,
    config,
    tokenizer,
    generation,
    tensors,
    fileBytes: checkpoint.fileBytes,
    weightBytes: tensors.storedBytes,
    parameterCount: tensors.parameterCount,
  };
}
