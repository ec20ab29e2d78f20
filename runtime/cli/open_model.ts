/**
 * Opens a model for a command: engine in its Worker, tokenizer here, progress on standard error.
 */
import { loadTextModule, Tokenizer } from "../../wasm/text.ts";
import { startEngine, type StartProgress } from "../engine/start.ts";
import type { AppDependencies } from "../http/generation.ts";
import type { WeightChoice } from "../weights/resident.ts";
import { type ModelFolder, openModelFolder } from "../weights/model_folder.ts";
import { byteText, createProgress, type Progress } from "../weights/progress.ts";

export interface ModelOptions {
  /** A model folder; the embedded model when left out. */
  readonly model?: string;
  readonly device: "auto" | "webgpu" | "cpu";
  /** A file of shapes for the webgpu device's kernels. */
  readonly tuning?: string;
  /** What weights are kept as; the best that fits when left out. */
  readonly weights?: WeightChoice;
  readonly slots?: number;
  /** Most tokens of one sequence. */
  readonly context?: number;
  /** Most bytes on the device. */
  readonly memory?: number;
  /** Requests that may wait. */
  readonly queue?: number;
  /** A Jinja file in place of Kimi's layout of conversations. */
  readonly chatTemplate?: string;
}

/** Tells an operator how a load goes. */
export interface LoadReport {
  show(progress: StartProgress): void;
  finish(bytes: number, seconds: number): void;
  /** Before the message of an error. */
  clear(): void;
}

/** Where the embedded model lies. */
export const EMBEDDED_MODEL = decodeURIComponent(
  new URL("../../models/kedge-tiny", import.meta.url).pathname,
);

/**
 * Loads a model and resolves when the first request can run. The Worker starts while this thread
 * reads the tokenizer. Throws UsageError, ModelError or DeviceError.
 */
export async function openModel(
  options: ModelOptions,
  display: LoadReport = new LoadDisplay(options.model ?? EMBEDDED_MODEL),
): Promise<AppDependencies> {
  const modelDirectory = options.model ?? EMBEDDED_MODEL;
  // Before the load: what is wrong here should not cost its time.
  const readTemplate = await openTemplate(options.chatTemplate);
  const tuning = await openTuning(options.tuning);
  try {
    const [engine, folder] = await Promise.all([
      startEngine(
        {
          modelDirectory,
          device: options.device,
          tuning,
          weights: options.weights,
          slots: options.slots,
          contextTokens: options.context,
          memoryBytes: options.memory,
          queueRequests: options.queue,
        },
        (progress) => display.show(progress),
      ),
      openModelFolder(modelDirectory),
    ]);
    display.finish(engine.model.weightBytes, engine.model.loadSeconds);
    const { tokenizer: { specials }, generation } = folder;
    const template = readTemplate?.(specials.map(({ text }) => text)) ?? null;
    return { engine, tokenizer: createTokenizer(folder), generation, template };
  } catch (error) {
    display.clear();
    throw error;
  }
}

/** What a tuning file says; undefined without one. Throws UsageError. */
export async function openTuning(path: string | undefined) {
  if (path === undefined) return undefined;
  return (await import("./tuning_file.ts")).readTuningFile(path);
}

/**
 * What makes a template over the special tokens' texts; null without a file. Whoever names none
 * does without the Jinja library.
 */
async function openTemplate(path: string | undefined) {
  if (path === undefined) return null;
  const file = await import("../chat/template_file.ts");
  const template = file.parseTemplate(file.readTemplateFile(path));
  return (specials: readonly string[]) => new file.ChatTemplate(template, specials);
}

function createTokenizer({ tokenizer, config }: ModelFolder): Tokenizer {
  loadTextModule();
  return new Tokenizer(tokenizer.tiktokenModel, tokenizer.specials, config.shape.vocabularySize);
}

/** The device, then how far its weights are. */
class LoadDisplay implements LoadReport {
  readonly #progress: Progress;

  constructor(modelDirectory: string) {
    const name = modelDirectory.split("/").findLast((part) => part !== "") ?? modelDirectory;
    this.#progress = createProgress(`load ${name}`);
  }

  show(progress: StartProgress): void {
    if (progress.type === "loading") {
      console.error(`device: ${progress.device}`);
      console.error(`weights: ${progress.weights}, ${byteText(progress.bytes)}`);
    } else this.#progress.update(progress.done, progress.total);
  }

  finish(bytes: number, seconds: number): void {
    this.#progress.finish(bytes, seconds);
  }

  clear(): void {
    this.#progress.clear();
  }
}
