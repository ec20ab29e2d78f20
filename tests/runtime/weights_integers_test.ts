/** Weights that the device holds as integers: out of the file, and rounded on the way. */
import assert from "node:assert/strict";
import { chooseWeights } from "../../runtime/engine/weight_choice.ts";
import { UsageError } from "../../runtime/errors.ts";
import type { WeightFormat } from "../../runtime/model/device.ts";
import { loadWeights, openModelFolder } from "../../runtime/weights/model_folder.ts";
import type { ModelFolder } from "../../runtime/weights/model_folder.ts";
import { ReadAhead } from "../../runtime/weights/read_ahead.ts";
import {
  residentBytes,
  residentFormat,
  residentWeights,
  type WeightChoice,
} from "../../runtime/weights/resident.ts";
import { decodeBf16, dequantize, encodeF16, type StoredMatrix } from "../reference/formats.ts";
import { roundToGroups } from "../reference/quantize.ts";
import {
  type Draft,
  type DraftFormat,
  draftModel,
  encodeDraft,
  GROUPED_SIZES,
  writeFiles,
} from "../tools/checkpoint_writer.ts";
import { type RecordedWeight, RecordingDevice } from "../tools/recording_device.ts";

/** Opens and loads a draft. */
async function load(draft: Draft, choice: WeightChoice | "file", readsAhead = false) {
  const directory = Deno.makeTempDirSync({ prefix: "kedge-model-" });
  try {
    writeFiles(directory, encodeDraft(draft));
    const folder = await openModelFolder(directory);
    const device = new RecordingDevice();
    const weights = residentWeights(folder.tensors.weights, choice);
    const report = await loadWeights(folder, device, () => {}, weights, readsAhead);
    device.checkComplete();
    assert.equal(report.bytes, folder.weightBytes);
    return { folder, device };
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const KEPT = ["0.kda.f_a", "0.kda.b", "0.kda.g_b", "1.mla.kv_a", "1.mla.kv_b", "1.moe.router"];
const MATRICES = ["0.kda.q", "2.kda.o", "1.mla.q", "1.mla.o", "0.dense.down", "1.moe.gate"]
  .concat("3.moe.up", "2.moe.down", "1.shared.gate", "1.shared.down");

Deno.test("residentFormat() rounds the matrices alone, embedding and head to q8", () => {
  const formats = ["f32", "f16", "bf16", "fp8"] as const;
  for (const stored of formats) {
    for (const choice of ["q8", "q4"] as const) {
      for (const key of MATRICES) assert.equal(residentFormat(key, stored, choice), choice);
      for (const key of KEPT) assert.equal(residentFormat(key, stored, choice), stored);
      for (const key of ["embed", "head"]) assert.equal(residentFormat(key, stored, choice), "q8");
      for (const key of ["norm", "0.kda.q_conv", "0.kda.a_log", "1.moe.router_bias"]) {
        assert.equal(residentFormat(key, "f32", choice), "f32");
      }
    }
    for (const choice of ["file", "bf16", "fp8"] as const) {
      assert.equal(residentFormat("0.kda.q", stored, choice), stored);
    }
  }
  for (const stored of ["q8", "q4"] as const) {
    for (const choice of ["file", "q8", "q4"] as const) {
      assert.equal(residentFormat("0.kda.q", stored, choice), stored);
    }
  }
});

for (const format of ["int4", "int8"] as const) {
  Deno.test(`${format} of a file arrives byte for byte, its scales as f16`, async () => {
    const draft = draftModel({ format, config: GROUPED_SIZES, seed: 3 });
    const { folder, device } = await load(draft, "file");
    const name = "model.layers.1.block_sparse_moe.experts.2.w1.weight";
    const stored = (suffix: string) => draft.tensors.find((t) => t.name === name + suffix)!;
    const { spec, matrices, groupScales } = device.weights.get("1.moe.gate")!;
    assert.equal(spec.format, format === "int4" ? "q4" : "q8");
    assert.deepEqual([spec.rows, spec.columns, spec.scale], [32, 96, null]);
    assert.deepEqual(matrices[2], stored(format === "int4" ? "_packed" : "").bytes);
    const bf16 = new Uint16Array(stored("_scale").bytes.buffer);
    const expected: number[] = [];
    for (let row = 0; row < 32; row++) {
      // Three scales a row, then padding.
      for (const bits of bf16.subarray(3 * row, 3 * row + 3)) {
        expected.push(encodeF16(decodeBf16(bits)));
      }
      expected.push(0);
    }
    assert.deepEqual([...new Uint16Array(groupScales[2]!.buffer)], expected);
    // Not in whole groups: left as it was.
    assert.equal(device.weights.get("0.kda.f_b")!.spec.format, "bf16");
    const count = folder.tensors.weights.reduce(
      (sum, { spec: s }) => sum + s.matrices * s.rows * s.columns,
      0,
    );
    assert.equal(folder.parameterCount, count);
  });
}

/** What the file holds of one matrix, exactly. */
function exactValues(weight: RecordedWeight, matrix: number): Float32Array {
  const { spec, matrices, scales } = weight;
  const { rows, columns, scale } = spec;
  return Float32Array.from(dequantize({
    format: spec.format as StoredMatrix["format"],
    rows,
    columns,
    bytes: matrices[matrix]!,
    scale: scale === null ? null : { ...scale, values: scales[matrix]! },
  }));
}

const FORMATS: DraftFormat[] = ["BF16", "F16", "F32", "fp8-block", "fp8-row"];
for (const format of FORMATS) {
  for (const choice of ["q8", "q4"] as const) {
    Deno.test(`${format} becomes ${choice} as the reference rounds it`, async () => {
      const draft = draftModel({ format, seed: 11 });
      const stored = (await load(draft, "file")).device;
      const { device } = await load(draft, choice);
      for (const [key, found] of device.weights) {
        const wanted = stored.weights.get(key)!;
        const { format: target, rows, columns } = found.spec;
        if (target !== "q8" && target !== "q4") {
          assert.deepEqual(found, wanted, key);
          continue;
        }
        found.matrices.forEach((bytes, matrix) => {
          const values = exactValues(wanted, matrix);
          const expected = roundToGroups(values, rows, columns, target);
          assert.deepEqual(bytes, expected.bytes, `${key} ${matrix}`);
          const scales = new Uint16Array(found.groupScales[matrix]!.buffer);
          assert.deepEqual(scales, expected.scales, `${key} ${matrix}`);
        });
      }
      const is = (key: string, wanted: WeightFormat) =>
        assert.equal(device.weights.get(key)!.spec.format, wanted);
      is("2.moe.down", choice);
      is("head", "q8");
    });
  }
}

Deno.test("a value that no scale can hold is refused by tensor and row", async () => {
  const draft = draftModel({ format: "F32" });
  const name = "model.layers.1.block_sparse_moe.experts.0.w2.weight";
  const tensor = draft.tensors.find((t) => t.name === name)!;
  new DataView(tensor.bytes.buffer).setFloat32(4 * (12 * 7 + 3), Infinity, true);
  await assert.rejects(load(draft, "q4"), /^ModelError: read .*w2.*found others in row 7$/);
});

async function open(format: DraftFormat): Promise<ModelFolder> {
  const config = format.startsWith("int") ? GROUPED_SIZES : {};
  return (await load(draftModel({ format, config }), "file")).folder;
}

Deno.test("--weights bf16 and fp8 take only files that are that", async () => {
  const refused = async (format: DraftFormat, choice: WeightChoice, found: RegExp) => {
    const { tensors } = await open(format);
    assert.throws(() => residentWeights(tensors.weights, choice), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, found);
      return true;
    });
  };
  await refused("BF16", "fp8", /^read --weights fp8: wanted a file with fp8, found bf16 in "model/);
  await refused("fp8-row", "bf16", /^read --weights bf16: wanted .* alone, found fp8 in "model/);
  await refused("int4", "bf16", /found q4 in "model/);
  await refused("int8", "fp8", /found q8 in "model/);
  for (const [format, choice] of [["BF16", "bf16"], ["F32", "bf16"], ["fp8-row", "fp8"]] as const) {
    const { weights } = (await open(format)).tensors;
    const specs = residentWeights(weights, choice).map(({ spec }) => spec);
    assert.deepEqual(specs, weights.map(({ spec }) => spec));
  }
});

Deno.test("without a choice the best that fits is taken, else the smallest", async () => {
  const { tensors: { weights }, config: { shape } } = await open("BF16");
  const bytes = (choice: WeightChoice | "file") =>
    residentWeights(weights, choice).reduce((sum, { spec }) => sum + residentBytes(spec), 0);
  const [file, q8, q4] = [bytes("file"), bytes("q8"), bytes("q4")];
  assert.ok(file > q8 && q8 > q4);
  const room = { slots: 1, contextTokens: 64, latentFormat: "f16", deviceKind: "webgpu" } as const;
  const choose = (memoryBytes: number | undefined, choice?: WeightChoice) =>
    chooseWeights(weights, choice, shape, { ...room, memoryBytes });
  assert.equal(choose(undefined).name, "as in the file");
  assert.equal(choose(undefined).bytes, file);
  const others = 64 * 2 * 14 * 2 + 4 * (2 * 8 * 8 + 3 * 2 * 24) * 2;
  const budget = (weightBytes: number) => Math.ceil((weightBytes + others) / 0.9);
  assert.equal(choose(budget(file)).name, "as in the file");
  assert.equal(choose(budget(file) - 2).name, "q8");
  assert.equal(choose(budget(q8)).name, "q8");
  assert.equal(choose(budget(q8) - 2).name, "q4");
  assert.equal(choose(1).name, "q4");
  assert.equal(choose(1, "q8").name, "q8");
});

Deno.test("residentBytes() of the 48B model's experts: 94 GB in bf16, 50 in q8, 26.5 in q4", () => {
  const matrix = (format: WeightFormat, rows: number, columns: number, matrices = 1) =>
    residentBytes({ key: "", format, matrices, rows, columns, scale: null });
  const experts = (format: WeightFormat) => 3 * 26 * matrix(format, 1024, 2304, 256);
  assert.equal(experts("bf16"), 94_220_845_056);
  assert.equal(experts("q8"), 47_110_422_528 * 34 / 32);
  assert.equal(experts("q4"), 47_110_422_528 * 18 / 32);
  // 36 groups make an even count, 5 do not.
  assert.equal(matrix("q4", 10, 160), 10 * (80 + 12));
  assert.equal(matrix("f32", 1, 20), 4 * 32);
});

Deno.test("a thread that reads ahead brings the same bytes", async () => {
  const drafts: [DraftFormat, WeightChoice | "file"][] = [
    ["BF16", "file"],
    ["BF16", "q4"],
    ["fp8-block", "q8"],
    ["fp8-row", "file"],
    ["int4", "file"],
  ];
  for (const [format, choice] of drafts) {
    const config = format === "int4" ? GROUPED_SIZES : {};
    const draft = draftModel({ format, config, shards: 2 });
    const wanted = await load(draft, choice);
    const found = await load(draft, choice, true);
    assert.deepEqual(found.device.weights, wanted.device.weights, `${format} ${choice}`);
  }
});

Deno.test("the thread stops at what it can't read, and keeps to its order", () => {
  const path = Deno.makeTempFileSync({ prefix: "kedge-pieces-" });
  try {
    Deno.writeFileSync(path, Uint8Array.from({ length: 100 }, (_, index) => index));
    const reads = [10, 0, 70, 30, 95, 20].map((offset) => ({ path, offset, length: 10 }));
    const ahead = new ReadAhead(reads);
    for (const { offset } of reads.slice(0, 4)) {
      const piece = ahead.next(path, offset, 10);
      assert.deepEqual([...piece!], Array.from({ length: 10 }, (_, i) => offset + i));
    }
    assert.throws(() => ahead.next(path, 20, 10), /found another order/);
    assert.equal(ahead.next(path, 95, 10), null);
    ahead.close();
    const missing = new ReadAhead([{ path: `${path}.none`, offset: 0, length: 1 }]);
    assert.equal(missing.next(`${path}.none`, 0, 1), null);
    missing.close();
  } finally {
    Deno.removeSync(path);
  }
});
