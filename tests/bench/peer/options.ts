/** The options of bench.ts; README.md lists them. */
import { parseArgs } from "node:util";
import { type Quantisation, QUANTISATIONS } from "./layout.ts";
import { WEIGHT_CHOICES } from "../../../runtime/weights/resident.ts";
import type { SideOptions, Work } from "./work.ts";

export interface BenchOptions {
  readonly model: string;
  readonly device: SideOptions["device"];
  readonly quantisation: Quantisation;
  /** Kedge's; undefined: what it takes by itself. */
  readonly weights: SideOptions["weights"];
  /** A GGUF that is there already, in place of one made from the model. */
  readonly gguf: string | undefined;
  /** Where the vocabulary's size stands. */
  readonly config: string;
  readonly peerOnly: boolean;
  /** llama.cpp runs once with each number of threads. */
  readonly threads: readonly number[];
  readonly works: readonly Work[];
  readonly rounds: number;
  /** No measurement begins later than this, counted from the last side's start. */
  readonly seconds: number;
  readonly realtime: boolean;
  /** Of llama.cpp, where it would choose it. */
  readonly flashAttention: boolean;
  readonly json: boolean;
}

/** Throws TypeError or Error naming the option. */
export function parseBenchOptions(args: readonly string[]): BenchOptions {
  const text = (fallback: string) => ({ type: "string", default: fallback }) as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: text("models/kedge-tiny"),
      device: text("cpu"),
      quant: text("Q8_0"),
      weights: { type: "string" },
      gguf: { type: "string" },
      config: { type: "string" },
      threads: { type: "string" },
      prefill: text("128,1024"),
      decode: text("1@16,8@16"),
      tokens: text("64"),
      rounds: text("5"),
      seconds: text("600"),
      "peer-only": { type: "boolean", default: false },
      realtime: { type: "boolean", default: false },
      "no-flash-attention": { type: "boolean", default: false },
      json: { type: "boolean", default: false },
    },
  });
  const cores = navigator.hardwareConcurrency;
  // A second thread can cost more than it brings where cores are shared.
  const threads = values.device === "cpu" && cores > 1 ? `1,${cores}` : `${cores}`;
  return {
    model: values.model,
    device: oneOf("--device", values.device, ["cpu", "webgpu"] as const),
    quantisation: oneOf("--quant", values.quant, QUANTISATIONS),
    weights: values.weights === undefined
      ? undefined
      : oneOf("--weights", values.weights, WEIGHT_CHOICES),
    gguf: values.gguf,
    config: values.config ?? `${values.model}/config.json`,
    peerOnly: values["peer-only"],
    threads: counts("--threads", values.threads ?? threads),
    works: worksOf(values.prefill, values.decode, counts("--tokens", values.tokens)[0]!),
    rounds: counts("--rounds", values.rounds)[0]!,
    seconds: counts("--seconds", values.seconds)[0]!,
    realtime: values.realtime,
    flashAttention: !values["no-flash-attention"],
    json: values.json,
  };
}

/** In the order of what is wanted most when time runs out: unsampled decoding last. */
function worksOf(prefill: string, decode: string, tokens: number): Work[] {
  const decodes = decode.split(",").map((item) => {
    const [batch, promptTokens] = counts("--decode", item.replace("@", ","));
    if (batch === undefined || promptTokens === undefined) {
      throw new Error(`read --decode: wanted BATCH@PROMPT as in 8@512, found "${item}"`);
    }
    return { kind: "decode", batch, promptTokens, tokens, bare: false } as const;
  });
  const prefills = counts("--prefill", prefill).map((promptTokens) =>
    ({ kind: "prefill", promptTokens }) as const
  );
  return [...decodes, ...prefills, ...decodes.map((work) => ({ ...work, bare: true }))];
}

function counts(option: string, text: string): number[] {
  return text.split(",").map((part) => {
    if (!/^[1-9]\d{0,6}$/.test(part)) {
      throw new Error(`read ${option}: wanted whole numbers from 1, found "${text}"`);
    }
    return Number(part);
  });
}

/** `text` where it is allowed; else throws an Error naming the option. */
export function oneOf<T extends string>(option: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found !== undefined) return found;
  throw new Error(`read ${option}: wanted one of ${allowed.join(", ")}, found "${text}"`);
}
