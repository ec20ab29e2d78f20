/**
 * llama.cpp through the N-API addon that node-llama-cpp ships, at the addon's own level: batches of
 * token ids in, logits and greedy tokens out. What node-llama-cpp puts above it (queues, chat,
 * checkpoints) only costs time here. The packages lie in `llama/`, apart from Kedge's own.
 */
import { createRequire } from "node:module";

export type LlamaBuild = "cpu" | "vulkan";

/** node-llama-cpp's package of each build. */
export const LLAMA_PACKAGES = { cpu: "linux-x64", vulkan: "linux-x64-vulkan" } as const;

/** The build that computes where a device of Kedge does. */
export function llamaBuild(device: "cpu" | "webgpu"): LlamaBuild {
  return device === "webgpu" ? "vulkan" : "cpu";
}

/** Tokens of one call: llama.cpp's own default for what it computes at once. */
const BATCH_TOKENS = 512;
/** More than any model has. */
const ALL_LAYERS = 1_000;
const LOG_ERROR = 2;

/** The part of the addon that is used (node-llama-cpp 3.22.1, dist/bindings/AddonTypes.d.ts). */
interface Addon {
  AddonModel: new (path: string, options: Record<string, unknown>) => AddonModel;
  AddonContext: new (model: AddonModel, options: Record<string, unknown>) => AddonContext;
  AddonSampler: new (model: AddonModel) => AddonSampler;
  loadBackends(directory: string): void;
  init(): Promise<void>;
  systemInfo(): string;
  getGpuDeviceInfo(): { deviceNames: string[] };
  setLogger(logger: (level: number, message: string) => void): void;
  setLoggerLogLevel(level: number): void;
}

interface AddonModel {
  init(): Promise<boolean>;
  dispose(): Promise<void>;
  tokenize(text: string, specialTokens: boolean): Uint32Array;
  getTotalSize(): number;
  getModelDescription(): string;
}

interface AddonContext {
  init(): Promise<boolean>;
  dispose(): Promise<void>;
  initBatch(tokens: number): void;
  addToBatch(
    sequence: number,
    position: number,
    tokens: Uint32Array,
    logitIndexes: Uint32Array,
  ): Uint32Array;
  decodeBatch(): Promise<void>;
  sampleToken(logitIndex: number, sampler: AddonSampler): Promise<number>;
  sampleToken(
    logitIndex: number,
    sampler: AddonSampler,
    probabilities: false,
    confidence: false,
    logits: true,
  ): Promise<[number, undefined, undefined, number[]]>;
  disposeSequence(sequence: number): void;
}

interface AddonSampler {
  applyConfig(config: { temperature: number }): void;
}

export interface LlamaOptions {
  readonly build: LlamaBuild;
  readonly threads: number;
  readonly sequences: number;
  /** Most tokens of each sequence. */
  readonly contextTokens: number;
  /** Whether it may take flash attention where it would. */
  readonly flashAttention: boolean;
}

/** One model in one context. */
export class Llama {
  private readonly samplers: AddonSampler[];
  /** Tokens that each sequence holds. */
  private readonly lengths: number[];

  private constructor(
    private readonly addon: Addon,
    private readonly model: AddonModel,
    private readonly context: AddonContext,
    private readonly options: LlamaOptions,
  ) {
    this.samplers = Array.from({ length: options.sequences }, () => {
      const sampler = new addon.AddonSampler(model);
      sampler.applyConfig({ temperature: 0 });
      return sampler;
    });
    this.lengths = this.samplers.map(() => 0);
  }

  /** Loads a GGUF. Rejects where the build finds no adapter, or llama.cpp refuses the file. */
  static async open(path: string, options: LlamaOptions): Promise<Llama> {
    const addon = await loadAddon(options.build);
    const gpuLayers = options.build === "vulkan" ? ALL_LAYERS : 0;
    const model = new addon.AddonModel(path, { addonExports: addon, gpuLayers, useMmap: true });
    if (!await model.init()) throw new Error(`load "${path}": llama.cpp refused it`);
    const context = new addon.AddonContext(model, {
      contextSize: options.contextTokens * options.sequences,
      batchSize: BATCH_TOKENS,
      sequences: options.sequences,
      threads: options.threads,
      flashAttention: options.flashAttention ? "auto" : false,
    });
    if (!await context.init()) throw new Error(`load "${path}": llama.cpp made no context`);
    return new Llama(addon, model, context, options);
  }

  /** What computes, and what. */
  get description(): string {
    const { build, threads } = this.options;
    const adapter = build === "vulkan"
      ? this.addon.getGpuDeviceInfo().deviceNames.join(", ")
      : `${threads} threads,${this.addon.systemInfo().replaceAll(/\s*[|:]/g, "")}`;
    return `llama.cpp v0.5.0 ${build} (${adapter.trim()}), ${this.model.getModelDescription()}`;
  }

  get modelBytes(): number {
    return this.model.getTotalSize();
  }

  tokenize(text: string): number[] {
    return [...this.model.tokenize(text, false)];
  }

  /** Empties a sequence. */
  clear(sequence: number): void {
    this.context.disposeSequence(sequence);
    this.lengths[sequence] = 0;
  }

  /** Appends a prompt to a sequence; resolves with the greedy token after it. */
  async prefill(sequence: number, tokens: Uint32Array): Promise<number> {
    let logit = 0;
    for (let from = 0; from < tokens.length; from += BATCH_TOKENS) {
      const piece = tokens.slice(from, from + BATCH_TOKENS);
      const isLast = from + piece.length === tokens.length;
      this.context.initBatch(piece.length);
      [logit = 0] = this.add(sequence, piece, isLast ? [piece.length - 1] : []);
      await this.context.decodeBatch();
    }
    return await this.context.sampleToken(logit, this.samplers[sequence]!);
  }

  /** Appends one token to each of sequences 0.. and resolves with the greedy ones after them. */
  async step(tokens: readonly number[]): Promise<number[]> {
    const logits = await this.stepWithoutSampling(tokens);
    return await Promise.all(
      logits.map((logit, sequence) => this.context.sampleToken(logit, this.samplers[sequence]!)),
    );
  }

  /** The same without choosing tokens, as llama-bench measures. Resolves with rows of logits. */
  async stepWithoutSampling(tokens: readonly number[]): Promise<number[]> {
    this.context.initBatch(tokens.length);
    const logits = tokens.map((token, sequence) =>
      this.add(sequence, Uint32Array.of(token), [0])[0]!
    );
    await this.context.decodeBatch();
    return logits;
  }

  /** Logits after each token of a text, [tokens, vocabulary]; sequence 0 is emptied before. */
  async logits(tokens: readonly number[], vocabularySize: number): Promise<Float32Array[]> {
    this.clear(0);
    const rows: Float32Array[] = [];
    for (const token of tokens) {
      const [row] = await this.stepWithoutSampling([token]);
      const sampler = this.samplers[0]!;
      const sampled = await this.context.sampleToken(row!, sampler, false, false, true);
      const logits = new Float32Array(vocabularySize);
      const pairs = sampled[3];
      for (let i = 0; i < pairs.length; i += 2) logits[pairs[i]!] = pairs[i + 1]!;
      rows.push(logits);
    }
    return rows;
  }

  async close(): Promise<void> {
    await this.context.dispose();
    await this.model.dispose();
  }

  private add(sequence: number, tokens: Uint32Array, wanted: readonly number[]): Uint32Array {
    const position = this.lengths[sequence]!;
    this.lengths[sequence]! += tokens.length;
    return this.context.addToBatch(sequence, position, tokens, Uint32Array.from(wanted));
  }
}

async function loadAddon(build: LlamaBuild): Promise<Addon> {
  const name = LLAMA_PACKAGES[build];
  const folder = new URL(
    `llama/node_modules/@node-llama-cpp/${name}/bins/${name}/`,
    import.meta.url,
  );
  const directory = decodeURIComponent(folder.pathname);
  const addon: Addon = createRequire(import.meta.url)(`${directory}llama-addon.node`);
  addon.setLogger((level, message) => {
    if (level <= LOG_ERROR) console.error(`llama.cpp: ${message.trimEnd()}`);
  });
  addon.setLoggerLogLevel(LOG_ERROR);
  addon.loadBackends(directory);
  await addon.init();
  if (build === "vulkan" && addon.getGpuDeviceInfo().deviceNames.length === 0) {
    throw new Error("start llama.cpp's Vulkan build: wanted an adapter, found none");
  }
  return addon;
}
