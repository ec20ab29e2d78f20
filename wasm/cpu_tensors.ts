/** Which tensors the cpu device needs for a model, and whether the declared ones are those. */
import type { ModelShape, TensorSpec } from "./cpu_types.ts";

/** Rows null: any number (the narrow side of a low-rank gate), taken from `rowsOf` where given. */
interface Wanted {
  readonly key: string;
  readonly rows: number | null;
  readonly columns: number | { readonly rowsOf: string };
  readonly matrices: number;
  /** Handed over as f32 whatever the file holds. */
  readonly f32: boolean;
}

function matrix(
  key: string,
  rows: number | null,
  columns: Wanted["columns"],
  matrices = 1,
): Wanted {
  return { key, rows, columns, matrices, f32: false };
}

function vector(key: string, columns: number): Wanted {
  return { key, rows: 1, columns, matrices: 1, f32: true };
}

function kdaTensors(layer: number, shape: ModelShape): Wanted[] {
  const { headCount, keyDim, valueDim, convolutionTaps } = shape.kda;
  const hidden = shape.hiddenSize;
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  const at = (name: string) => `${layer}.kda.${name}`;
  const convolution = (name: string, channels: number): Wanted => ({
    ...matrix(at(name), channels, convolutionTaps),
    f32: true,
  });
  return [
    matrix(at("q"), keys, hidden),
    matrix(at("k"), keys, hidden),
    matrix(at("v"), values, hidden),
    convolution("q_conv", keys),
    convolution("k_conv", keys),
    convolution("v_conv", values),
    vector(at("a_log"), headCount),
    vector(at("dt_bias"), keys),
    matrix(at("f_a"), null, hidden),
    matrix(at("f_b"), keys, { rowsOf: at("f_a") }),
    matrix(at("b"), headCount, hidden),
    matrix(at("g_a"), null, hidden),
    matrix(at("g_b"), values, { rowsOf: at("g_a") }),
    vector(at("o_norm"), valueDim),
    matrix(at("o"), hidden, values),
  ];
}

function mlaTensors(layer: number, shape: ModelShape): Wanted[] {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape.mla;
  const at = (name: string) => `${layer}.mla.${name}`;
  return [
    matrix(at("q"), headCount * (nopeDim + sharedKeyDim), shape.hiddenSize),
    matrix(at("kv_a"), latentDim + sharedKeyDim, shape.hiddenSize),
    vector(at("kv_norm"), latentDim),
    matrix(at("kv_b"), headCount * (nopeDim + valueDim), latentDim),
    matrix(at("o"), shape.hiddenSize, headCount * valueDim),
  ];
}

function feedForwardTensors(prefix: string, width: number, hidden: number, count = 1): Wanted[] {
  return [
    matrix(`${prefix}.gate`, width, hidden, count),
    matrix(`${prefix}.up`, width, hidden, count),
    matrix(`${prefix}.down`, hidden, width, count),
  ];
}

function moeTensors(layer: number, shape: ModelShape): Wanted[] {
  const { expertCount, intermediateSize, sharedIntermediateSize } = shape.moe;
  const hidden = shape.hiddenSize;
  const shared = sharedIntermediateSize === 0
    ? []
    : feedForwardTensors(`${layer}.shared`, sharedIntermediateSize, hidden);
  return [
    matrix(`${layer}.moe.router`, expertCount, hidden),
    vector(`${layer}.moe.router_bias`, expertCount),
    ...feedForwardTensors(`${layer}.moe`, intermediateSize, hidden, expertCount),
    ...shared,
  ];
}

function wantedTensors(shape: ModelShape): Wanted[] {
  const hidden = shape.hiddenSize;
  const layers = shape.layers.flatMap((kind, layer) => [
    vector(`${layer}.mixer_norm`, hidden),
    vector(`${layer}.ffn_norm`, hidden),
    ...(kind.mixer === "kda" ? kdaTensors(layer, shape) : mlaTensors(layer, shape)),
    ...(kind.feedForward === "dense"
      ? feedForwardTensors(`${layer}.dense`, shape.denseIntermediateSize, hidden)
      : moeTensors(layer, shape)),
  ]);
  return [
    matrix("embed", shape.vocabularySize, hidden),
    matrix("head", shape.vocabularySize, hidden),
    vector("norm", hidden),
    ...layers,
  ];
}

/** Throws unless `tensors` are exactly the tensors of a model of this shape. */
export function checkTensors(shape: ModelShape, tensors: readonly TensorSpec[]): void {
  const found = new Map<string, TensorSpec>();
  for (const tensor of tensors) {
    if (found.has(tensor.key)) throw new Error(`declare tensor "${tensor.key}": declared twice`);
    found.set(tensor.key, tensor);
  }
  const wanted = wantedTensors(shape);
  for (const want of wanted) {
    const spec = found.get(want.key);
    if (spec === undefined) throw new Error(`declare tensors: tensor "${want.key}" is missing`);
    checkTensor(want, spec, found);
  }
  const known = new Set(wanted.map((want) => want.key));
  for (const key of found.keys()) {
    if (!known.has(key)) throw new Error(`declare tensor "${key}": the model has no such tensor`);
  }
}

function checkTensor(want: Wanted, spec: TensorSpec, all: ReadonlyMap<string, TensorSpec>): void {
  const columns = typeof want.columns === "number"
    ? want.columns
    : all.get(want.columns.rowsOf)?.rows ?? 0;
  const rows = want.rows ?? Math.max(1, spec.rows);
  const action = `declare tensor "${spec.key}"`;
  if (spec.rows !== rows || spec.columns !== columns || spec.matrices !== want.matrices) {
    throw new Error(
      `${action}: wanted ${want.matrices} x [${rows}, ${columns}], ` +
        `found ${spec.matrices} x [${spec.rows}, ${spec.columns}]`,
    );
  }
  if (!["f32", "f16", "bf16", "fp8", "q8", "q4"].includes(spec.format)) {
    throw new Error(
      `${action}: wanted format f32, f16, bf16, fp8, q8 or q4, found "${spec.format}"`,
    );
  }
  if (want.f32 && spec.format !== "f32") {
    throw new Error(`${action}: wanted format "f32", found "${spec.format}"`);
  }
  if ((spec.format === "fp8") !== (spec.scale !== null)) {
    throw new Error(`${action}: wanted scales for fp8 and for nothing else`);
  }
  const scale = spec.scale;
  if (scale && !(isCount(scale.rowsPerScale) && isCount(scale.columnsPerScale))) {
    throw new Error(
      `${action}: wanted whole rows and columns per scale of at least 1, ` +
        `found ${scale.rowsPerScale} and ${scale.columnsPerScale}`,
    );
  }
}

const isCount = (value: number) => Number.isSafeInteger(value) && value >= 1;

/** Throws unless every size is a whole number that a model can have. */
export function checkShape(shape: ModelShape): void {
  const { kda, mla, moe } = shape;
  const check = (name: string, value: number, least: number) => {
    if (!Number.isInteger(value) || value < least || value > 0x7fff_ffff) {
      throw new Error(
        `read model shape "${name}": wanted a whole number >= ${least}, found ${value}`,
      );
    }
  };
  check("vocabularySize", shape.vocabularySize, 1);
  check("hiddenSize", shape.hiddenSize, 1);
  for (const kind of shape.layers) {
    if (kind.mixer === "kda") {
      check("kda.headCount", kda.headCount, 1);
      check("kda.keyDim", kda.keyDim, 1);
      check("kda.valueDim", kda.valueDim, 1);
      check("kda.convolutionTaps", kda.convolutionTaps, 1);
    } else {
      check("mla.headCount", mla.headCount, 1);
      check("mla.latentDim", mla.latentDim, 1);
      check("mla.nopeDim", mla.nopeDim, 1);
      check("mla.sharedKeyDim", mla.sharedKeyDim, 0);
      check("mla.valueDim", mla.valueDim, 1);
    }
    if (kind.feedForward === "dense") {
      check("denseIntermediateSize", shape.denseIntermediateSize, 1);
    } else {
      check("moe.expertCount", moe.expertCount, 1);
      check("moe.expertsPerToken", moe.expertsPerToken, 1);
      check("moe.intermediateSize", moe.intermediateSize, 1);
      check("moe.sharedIntermediateSize", moe.sharedIntermediateSize, 0);
      if (moe.expertsPerToken > moe.expertCount) {
        throw new Error(
          `read model shape "moe.expertsPerToken": wanted at most ${moe.expertCount}, ` +
            `found ${moe.expertsPerToken}`,
        );
      }
    }
  }
}
