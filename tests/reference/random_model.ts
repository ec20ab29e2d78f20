/** Random models for tests of a device: tensors as a loader would hand them over. */
import {
  dequantize,
  dequantizeGroups,
  type GroupedMatrix,
  quantize,
  quantizeGroups,
  type ScaleGrid,
  type StoredMatrix,
} from "./formats.ts";
import { IntegerWeights } from "./matmul.ts";
import type { ReferenceShape, WeightSource } from "./model.ts";
import { normals } from "./random.ts";

/** Sizes of a random model: those of the reference, and the widths of the feed-forward blocks. */
export interface RandomShape extends ReferenceShape {
  readonly denseIntermediateSize: number;
  readonly moe: ReferenceShape["moe"] & { readonly intermediateSize: number };
}

export type RandomMatrix = StoredMatrix | GroupedMatrix;

/** How the big matrices are stored; for fp8, rows and columns per scale. */
export interface RandomStorage {
  readonly format: RandomMatrix["format"];
  readonly rowsPerScale?: number;
  readonly columnsPerScale?: number;
}

/** Tensors by key: one stored matrix per expert, or one. */
export type RandomTensors = Map<string, RandomMatrix[]>;

const isGrouped = (matrix: RandomMatrix): matrix is GroupedMatrix => "scales" in matrix;

function exactValues(matrix: RandomMatrix): Float64Array {
  return isGrouped(matrix) ? dequantizeGroups(matrix) : dequantize(matrix);
}

/** What `device.declare` takes. */
export function tensorSpecs(tensors: RandomTensors) {
  return [...tensors].map(([key, [first, ...rest]]) => {
    const scale = isGrouped(first!) ? null : first!.scale;
    return {
      key,
      format: first!.format,
      matrices: rest.length + 1,
      rows: first!.rows,
      columns: first!.columns,
      scale: scale && { rowsPerScale: scale.rowsPerScale, columnsPerScale: scale.columnsPerScale },
    };
  });
}

/** The part of a device that takes weights. */
interface Loading {
  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void;
  writeScales(key: string, matrix: number, scales: Float32Array): void;
  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void;
}

/** Writes all tensors, in pieces that grow from `piece` elements of at most 4 bytes. */
export function writeTensors(device: Loading, tensors: RandomTensors, piece: number): void {
  for (const [key, matrices] of tensors) {
    matrices.forEach((matrix, index) => {
      let length = piece * 4;
      for (let at = 0; at < matrix.bytes.length; at += length, length *= 3) {
        device.write(key, index, at, matrix.bytes.subarray(at, at + length));
      }
      if (isGrouped(matrix)) writeGroupScales(device, key, index, matrix);
      else if (matrix.scale) device.writeScales(key, index, Float32Array.from(matrix.scale.values));
    });
  }
}

/** The scales in two pieces. */
function writeGroupScales(device: Loading, key: string, index: number, matrix: GroupedMatrix) {
  const bytes = new Uint8Array(matrix.scales.buffer);
  const border = Math.floor(matrix.rows / 2) * (bytes.length / matrix.rows);
  device.writeGroupScales(key, index, 0, bytes.subarray(0, border));
  device.writeGroupScales(key, index, border, bytes.subarray(border));
}

/**
 * The exact values of the tensors, each computed once. Those of q8 and q4 round what they multiply,
 * but for kv_b, which the cpu device widens.
 */
export function weightSource(tensors: RandomTensors): WeightSource {
  const known = new Map<string, Float64Array>();
  return (key, matrix = 0) => {
    const name = `${key} ${matrix}`;
    let values = known.get(name);
    if (values === undefined) {
      const stored = tensors.get(key)?.[matrix];
      if (stored === undefined) throw new Error(`read random tensor "${name}": there is none`);
      const integers = isGrouped(stored) && !key.endsWith(".kv_b");
      const exact = exactValues(stored);
      values = integers ? new IntegerWeights(exact) : exact;
      known.set(name, values);
    }
    return values;
  };
}

/** The model's tensors with random values, big matrices in `storage`, all else in f32. */
export function randomTensors(
  shape: RandomShape,
  storage: RandomStorage,
  random: () => number,
  rank = 16,
): RandomTensors {
  const tensors: RandomTensors = new Map();
  const matrix = (key: string, rows: number, columns: number, count = 1) => {
    const one = () => {
      const values = normals(random, rows * columns, 1 / Math.sqrt(columns));
      const { format } = storage;
      if (format === "q8" || format === "q4") return quantizeGroups(values, rows, columns, format);
      return quantize(values, rows, columns, format, grid(storage, rows, columns, random));
    };
    tensors.set(key, Array.from({ length: count }, one));
  };
  const vector = (key: string, columns: number, mean: number, deviation: number, rows = 1) => {
    const values = normals(random, rows * columns, deviation).map((value) => value + mean);
    tensors.set(key, [quantize(values, rows, columns, "f32")]);
  };
  const hidden = shape.hiddenSize;
  const feedForward = (prefix: string, width: number, count = 1) => {
    matrix(`${prefix}.gate`, width, hidden, count);
    matrix(`${prefix}.up`, width, hidden, count);
    matrix(`${prefix}.down`, hidden, width, count);
  };
  matrix("embed", shape.vocabularySize, hidden);
  matrix("head", shape.vocabularySize, hidden);
  vector("norm", hidden, 1, 0.1);
  shape.layers.forEach((kind, layer) => {
    vector(`${layer}.mixer_norm`, hidden, 1, 0.1);
    vector(`${layer}.ffn_norm`, hidden, 1, 0.1);
    if (kind.mixer === "kda") addKda(shape, `${layer}.kda`, rank, matrix, vector);
    else addMla(shape, `${layer}.mla`, matrix, vector);
    if (kind.feedForward === "dense") {
      feedForward(`${layer}.dense`, shape.denseIntermediateSize);
      return;
    }
    matrix(`${layer}.moe.router`, shape.moe.expertCount, hidden);
    vector(`${layer}.moe.router_bias`, shape.moe.expertCount, 0, 0.1);
    feedForward(`${layer}.moe`, shape.moe.intermediateSize, shape.moe.expertCount);
    if (shape.moe.sharedIntermediateSize > 0) {
      feedForward(`${layer}.shared`, shape.moe.sharedIntermediateSize);
    }
  });
  return tensors;
}

type AddMatrix = (key: string, rows: number, columns: number) => void;
type AddVector = (
  key: string,
  columns: number,
  mean: number,
  deviation: number,
  rows?: number,
) => void;

function addKda(
  shape: RandomShape,
  prefix: string,
  rank: number,
  matrix: AddMatrix,
  vector: AddVector,
): void {
  const { headCount, keyDim, valueDim, convolutionTaps } = shape.kda;
  const hidden = shape.hiddenSize;
  const keys = headCount * keyDim;
  const values = headCount * valueDim;
  matrix(`${prefix}.q`, keys, hidden);
  matrix(`${prefix}.k`, keys, hidden);
  matrix(`${prefix}.v`, values, hidden);
  vector(`${prefix}.q_conv`, convolutionTaps, 0.2, 0.5, keys);
  vector(`${prefix}.k_conv`, convolutionTaps, 0.2, 0.5, keys);
  vector(`${prefix}.v_conv`, convolutionTaps, 0.2, 0.5, values);
  vector(`${prefix}.a_log`, headCount, 0, 1);
  vector(`${prefix}.dt_bias`, keys, -3, 1.5);
  matrix(`${prefix}.f_a`, rank, hidden);
  matrix(`${prefix}.f_b`, keys, rank);
  matrix(`${prefix}.b`, headCount, hidden);
  matrix(`${prefix}.g_a`, rank, hidden);
  matrix(`${prefix}.g_b`, values, rank);
  vector(`${prefix}.o_norm`, valueDim, 1, 0.1);
  matrix(`${prefix}.o`, hidden, values);
}

function addMla(shape: RandomShape, prefix: string, matrix: AddMatrix, vector: AddVector): void {
  const { headCount, latentDim, nopeDim, sharedKeyDim, valueDim } = shape.mla;
  matrix(`${prefix}.q`, headCount * (nopeDim + sharedKeyDim), shape.hiddenSize);
  matrix(`${prefix}.kv_a`, latentDim + sharedKeyDim, shape.hiddenSize);
  vector(`${prefix}.kv_norm`, latentDim, 1, 0.1);
  matrix(`${prefix}.kv_b`, headCount * (nopeDim + valueDim), latentDim);
  matrix(`${prefix}.o`, shape.hiddenSize, headCount * valueDim);
}

/** Random scales such that values of ordinary size use most of e4m3's range. */
function grid(
  storage: RandomStorage,
  rows: number,
  columns: number,
  random: () => number,
): ScaleGrid | null {
  if (storage.format !== "fp8") return null;
  const rowsPerScale = Math.min(storage.rowsPerScale ?? 128, rows);
  const columnsPerScale = Math.min(storage.columnsPerScale ?? 128, columns);
  const count = Math.ceil(rows / rowsPerScale) * Math.ceil(columns / columnsPerScale);
  const typical = 4 / 448 / Math.sqrt(columns);
  const values = Float32Array.from({ length: count }, () => typical * (0.5 + random()));
  return { rowsPerScale, columnsPerScale, values };
}

const VOCABULARY = /^(embed|head)$/;
/** Keys that fp8 checkpoints keep as floats. */
const FLOAT = /(norm|conv|a_log|dt_bias|router|router_bias|kda\.b)$/;
/** Keys that resident q8, q4 and synthetic fp8 weights keep as floats. */
const KEPT = /(norm|conv|a_log|dt_bias|router|router_bias|f_a|f_b|g_a|g_b|kda\.b|kv_a|kv_b)$/;

/**
 * The same tensors with all large matrices in fp8 with random grids of such cells; `small`: all
 * others too, but for vectors, routers and write strengths.
 */
export function blockTensors(
  tensors: RandomTensors,
  rowsPerScale: number,
  columnsPerScale: number,
  random: () => number,
  small = false,
): RandomTensors {
  const storage = { format: "fp8", rowsPerScale, columnsPerScale } as const;
  const block = (stored: RandomMatrix) => {
    const { rows, columns } = stored;
    return quantize(
      exactValues(stored),
      rows,
      columns,
      "fp8",
      grid(storage, rows, columns, random),
    );
  };
  const kept = (key: string) => small ? FLOAT.test(key) : KEPT.test(key) || VOCABULARY.test(key);
  return new Map(
    [...tensors].map(([key, stored]) => [key, kept(key) ? stored : stored.map(block)]),
  );
}

/** The same tensors with all large matrices in q8 or q4, embedding and head in q8. */
export function groupTensors(tensors: RandomTensors, format: "q8" | "q4"): RandomTensors {
  const result: RandomTensors = new Map();
  for (const [key, matrices] of tensors) {
    const own = key === "embed" || key === "head" ? "q8" : format;
    const group = (stored: RandomMatrix) =>
      quantizeGroups(exactValues(stored), stored.rows, stored.columns, own);
    result.set(key, KEPT.test(key) ? matrices : matrices.map(group));
  }
  return result;
}
