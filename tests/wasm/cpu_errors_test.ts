/** What the cpu device refuses, and in which words. */
import assert from "node:assert/strict";
import { CpuDevice } from "../../wasm/cpu.ts";
import { loadModule, preferredVariant } from "../../wasm/cpu_module.ts";
import type { ModelShape, StepPlan, TensorSpec } from "../../wasm/cpu_types.ts";
import { randomTensors, tensorSpecs } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { loadDevice, oddShape, smallCapacity } from "./cpu_harness.ts";
import { plainRows } from "../tools/logit_rows.ts";

const variant = preferredVariant();
const tensors = randomTensors(oddShape, { format: "fp8" }, randomSource(2));
const specs = tensorSpecs(tensors);

function declared(): CpuDevice {
  const device = new CpuDevice(oddShape);
  device.declare(specs);
  return device;
}

const plan: StepPlan = {
  tokens: Uint32Array.of(1, 2, 3),
  sequences: [
    { slot: 0, rowStart: 0, rowCount: 2, past: 0, pages: Uint32Array.of(0) },
    { slot: 1, rowStart: 2, rowCount: 1, past: 9, pages: Uint32Array.of(1, 2) },
  ],
  feeds: null,
  logits: plainRows([2]),
};

Deno.test("CpuDevice refuses a model that can't fit into 4 GiB before it allocates", () => {
  const shape: ModelShape = { ...oddShape, vocabularySize: 2 ** 24 };
  const large = specs.map((spec): TensorSpec =>
    ["embed", "head"].includes(spec.key)
      ? { ...spec, format: "bf16", scale: null, rows: shape.vocabularySize }
      : spec
  );
  const device = new CpuDevice(shape);
  const before = loadModule(variant).memory.buffer.byteLength;
  assert.throws(
    () => device.declare(large),
    /declare tensors: wanted 85\d{8} bytes, found \d+ bytes available in the 4 GiB/,
  );
  assert.equal(loadModule(variant).memory.buffer.byteLength, before);
  assert.equal(device.allocatedBytes, 0);
  device.destroy();
});

Deno.test("CpuDevice.configure() refuses a capacity that can't fit", async () => {
  const device = declared();
  const bytes = device.allocatedBytes;
  const capacity = { ...smallCapacity, pages: 2 ** 24 };
  await assert.rejects(() => device.configure(capacity), /configure device: wanted \d+ bytes/);
  assert.equal(device.allocatedBytes, bytes);
  await device.configure(smallCapacity);
  device.destroy();
});

Deno.test("CpuDevice.declare() names a tensor missing, foreign, double or misshapen", () => {
  const device = new CpuDevice(oddShape);
  const without = specs.filter((spec) => spec.key !== "2.kda.f_b");
  assert.throws(() => device.declare(without), /tensor "2\.kda\.f_b" is missing/);
  const extra = { ...specs[0]!, key: "3.kda.q" };
  assert.throws(() => device.declare([...specs, extra]), /"3\.kda\.q": the model has no such/);
  assert.throws(() => device.declare([...specs, specs[0]!]), /"embed": declared twice/);
  const change = (key: string, change: Partial<TensorSpec>) =>
    specs.map((spec): TensorSpec => spec.key === key ? { ...spec, ...change } : spec);
  assert.throws(
    () => device.declare(change("head", { rows: 76 })),
    /declare tensor "head": wanted 1 x \[77, 120\], found 1 x \[76, 120\]/,
  );
  assert.throws(
    () => device.declare(change("1.moe.up", { matrices: 11 })),
    /"1\.moe\.up": wanted 12 x \[40, 120\], found 11 x \[40, 120\]/,
  );
  assert.throws(() => device.declare(change("head", { scale: null })), /"head": wanted scales/);
  assert.throws(() => device.declare(change("norm", { format: "bf16" })), /"norm": wanted format/);
  device.destroy();
});

Deno.test("CpuDevice.write() refuses what lies outside a tensor", () => {
  const device = declared();
  const bytes = new Uint8Array(4);
  assert.throws(() => device.write("nothing", 0, 0, bytes), /write tensor "nothing": not declared/);
  assert.throws(() => device.write("1.moe.up", 12, 0, bytes), /wanted a matrix below 12, found 12/);
  assert.throws(() => device.write("norm", 0, 2, bytes), /"norm": wanted whole elements/);
  assert.throws(() => device.write("norm", 0, 480, bytes), /within 480 bytes, found \[480, 484\)/);
  assert.throws(() => device.write("norm", 0, -4, bytes), /wanted whole elements/);
  assert.throws(
    () => device.writeScales("head", 0, new Float32Array(2)),
    /write scales of tensor "head": wanted 1, found 2/,
  );
  device.destroy();
});

Deno.test("CpuDevice refuses calls out of order", async () => {
  const device = new CpuDevice(oddShape);
  await assert.rejects(() => device.configure(smallCapacity), /no tensors are declared/);
  assert.throws(() => device.begin(plan), /begin step: the device is not configured/);
  device.declare(specs);
  assert.throws(() => device.declare(specs), /declared before/);
  await device.configure(smallCapacity);
  await assert.rejects(() => device.configure(smallCapacity), /configured before/);
  assert.throws(() => device.write("norm", 0, 0, new Uint8Array(4)), /configured already/);
  assert.throws(() => device.embed(), /embed: no step has begun/);
  assert.throws(() => device.finish(), /finish step: no step has begun/);
  device.begin(plan);
  assert.throws(() => device.mla(0), /wanted a mla layer, found "kda" in layer 0/);
  assert.throws(() => device.moe(3), /wanted a moe layer, found "none" in layer 3/);
  assert.throws(() => device.zeroSlot(4), /zero slot: wanted a slot below 4, found 4/);
  await assert.rejects(() => device.readState(1, 0), /wanted a kda layer, found "mla"/);
  await assert.rejects(
    () => device.readLatents(1, Uint32Array.of(0), 8),
    /wanted 2 pages for 8 positions, found 1/,
  );
  device.destroy();
  device.destroy();
  assert.throws(() => device.begin(plan), /the device is destroyed/);
  assert.equal(device.allocatedBytes, 0);
});

Deno.test("CpuDevice.begin() refuses plans that it can't run", async () => {
  const device = await loadDevice(oddShape, tensors, variant, { ...smallCapacity, rows: 8 });
  const refuses = (change: Partial<StepPlan>, message: RegExp) =>
    assert.throws(() => device.begin({ ...plan, ...change }), message);
  const [first, second] = plan.sequences;
  refuses({ tokens: new Uint32Array(9) }, /wanted at most 8 rows, found 9/);
  refuses({ tokens: Uint32Array.of(1, 77, 3) }, /wanted token ids below 77, found 77/);
  refuses({ sequences: [first!] }, /wanted sequences over 3 rows, found 2/);
  refuses({ sequences: [second!, first!] }, /wanted a sequence at row 0, found 2/);
  refuses({ sequences: [first!, { ...second!, slot: 4 }] }, /wanted a slot below 4, found 4/);
  refuses({ sequences: [first!, { ...second!, slot: 0 }] }, /slot 0 belongs to two sequences/);
  refuses({ sequences: [first!, { ...second!, rowCount: 0 }] }, /wanted at least 1 row/);
  refuses({ sequences: [first!, { ...second!, past: -1 }] }, /wanted past >= 0/);
  refuses({ sequences: [first!, { ...second!, past: 14 }] }, /wanted 3 pages for 15 positions/);
  const page = Uint32Array.of(1, 32);
  refuses({ sequences: [first!, { ...second!, pages: page }] }, /wanted pages below 32, found 32/);
  refuses({ logits: plainRows([3]) }, /wanted ascending logit rows below 3, found 3/);
  refuses({ logits: plainRows([1, 1]) }, /found 1 after 1/);
  device.begin(plan);
  device.embed();
  device.destroy();
});

Deno.test("new CpuDevice() refuses sizes that no model has", () => {
  const wrong = { ...oddShape, moe: { ...oddShape.moe, expertsPerToken: 13 } };
  assert.throws(() => new CpuDevice(wrong), /"moe\.expertsPerToken": wanted at most 12, found 13/);
  assert.throws(
    () => new CpuDevice({ ...oddShape, hiddenSize: 0 }),
    /"hiddenSize": wanted a whole/,
  );
});

Deno.test("CpuDevice gives its memory back when it is destroyed", async () => {
  const grown = async () => {
    const device = await loadDevice(oddShape, tensors, variant);
    device.destroy();
    return loadModule(variant).memory.buffer.byteLength;
  };
  await grown();
  const before = await grown();
  for (let i = 0; i < 5; i++) assert.equal(await grown(), before);
});
