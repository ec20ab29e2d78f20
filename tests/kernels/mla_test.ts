/** MLA's kernels against f64: the absorbed form against the expanded one, the cache bit by bit. */
import assert from "node:assert";
import { defineKernel } from "../../kernels/gpu/kernel.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import {
  allocateLatents,
  latentEntryBytes,
  type LatentFormat,
  latentPrelude,
  latentQuads,
} from "../../kernels/latent_cache.ts";
import { compileMlaAttention } from "../../kernels/mla_attention.ts";
import { compileMlaLatent, mlaLatent } from "../../kernels/mla_latent.ts";
import { StepBuffers } from "../../kernels/step_buffers.ts";
import type { MlaShape, WeightFormat } from "../../kernels/types.ts";
import { decodeF16, encodeF16 } from "../reference/formats.ts";
import { normals, randomSource } from "../reference/random.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { download, guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import {
  type MlaCase,
  mlaInputs,
  referenceMla,
  runExpanded,
  runMla,
  segmentOf,
} from "./mla_driver.ts";
import { planOf, reordered } from "./plans.ts";
import { assertClose, assertSameBits } from "./weights.ts";

function shapeOf(
  headCount: number,
  latentDim: number,
  nopeDim: number,
  sharedKeyDim: number,
  valueDim: number,
): MlaShape {
  return { headCount, latentDim, nopeDim, sharedKeyDim, valueDim };
}

const TINY = shapeOf(1, 1, 1, 1, 1);
const ODD = shapeOf(3, 96, 40, 24, 56);
const UNEVEN = shapeOf(5, 91, 17, 7, 9);
const WIDE = shapeOf(4, 512, 128, 64, 128);

/** Sequences given as [past, rows], with scrambled pages. */
function caseOf(
  random: () => number,
  shape: MlaShape,
  sequences: readonly (readonly [number, number])[],
  options: Partial<Omit<MlaCase, "segments" | "shape">> = {},
): MlaCase {
  const { pageTokens = 16, splitTokens = 256, batchRows = 1_000, latentFormat = "f32" } = options;
  const total = sequences.reduce((sum, [past, rows]) => sum + past + rows + pageTokens, 0);
  const free = Array.from({ length: Math.ceil(total / pageTokens) + 5 }, (_, page) => page);
  const segments = sequences.map(([past, rows], slot) =>
    segmentOf(random, free, slot, past, rows, pageTokens)
  );
  return { shape, segments, pageTokens, splitTokens, batchRows, latentFormat };
}

const CASES: readonly [
  string,
  WeightFormat,
  MlaShape,
  readonly (readonly [number, number])[],
  Partial<Omit<MlaCase, "segments" | "shape">>,
][] = [
  ["one token", "f32", TINY, [[0, 1]], {}],
  ["odd shape, ragged", "bf16", ODD, [[0, 1], [300, 1], [0, 37], [255, 1], [250, 12]], {}],
  ["odd shape, f16 latents", "f16", ODD, [[511, 2], [0, 20]], { latentFormat: "f16" }],
  ["uneven shape, fp8", "fp8", UNEVEN, [[256, 3], [0, 9]], { latentFormat: "f16", pageTokens: 7 }],
  ["several tiles a split", "bf16", UNEVEN, [[1_500, 2], [600, 1]], { splitTokens: 512 }],
  ["odd shape, q4", "q4", ODD, [[20, 3]], {}],
  ["uneven shape, q8", "q8", UNEVEN, [[20, 3]], {}],
  ["batches of rows", "fp8", UNEVEN, [[290, 5], [0, 4]], { batchRows: 2 }],
  ["published head", "bf16", WIDE, [[258, 1], [0, 3]], { latentFormat: "f16", pageTokens: 64 }],
];

for (const [index, [name, format, shape, sequences, options]] of CASES.entries()) {
  withGpu(`absorbed MLA agrees with the expanded form in f64: ${name}`, async (gpu) => {
    const random = randomSource(500 + index);
    const test = caseOf(random, shape, sequences, options);
    const inputs = mlaInputs(gpu, random, test, format);
    const found = await runMla(gpu, test, inputs);
    assertClose(found, referenceMla(test, inputs), shape.headCount * shape.valueDim, name);
    assertSameBits(await runMla(gpu, test, inputs), found, "second run");
  });
}

const EXPANDED_CASES: readonly [
  string,
  WeightFormat,
  MlaShape,
  readonly (readonly [number, number])[],
  Partial<Omit<MlaCase, "segments" | "shape">>,
][] = [
  ["two tokens", "f32", TINY, [[0, 2]], {}],
  ["odd shape, ragged", "bf16", ODD, [[0, 70], [100, 2], [61, 130]], {}],
  ["uneven shape, fp8", "fp8", UNEVEN, [[150, 3], [0, 65]], { latentFormat: "f16", pageTokens: 7 }],
  ["odd shape, q4", "q4", ODD, [[20, 30]], {}],
  ["uneven shape, q8", "q8", UNEVEN, [[20, 30]], {}],
  ["published head", "bf16", WIDE, [[60, 10]], { latentFormat: "f16", pageTokens: 64 }],
];

for (const [index, [name, format, shape, sequences, options]] of EXPANDED_CASES.entries()) {
  withGpu(
    `MlaExpanded (mla_gather, mla_prefill) agrees with f64 however rows are cut: ${name}`,
    async (gpu) => {
      const random = randomSource(520 + index);
      const test = caseOf(random, shape, sequences, options);
      const inputs = mlaInputs(gpu, random, test, format);
      const found = await runExpanded(gpu, test, inputs, 128, 1_000);
      assertClose(found, referenceMla(test, inputs), shape.headCount * shape.valueDim, name);
      assertSameBits(await runExpanded(gpu, test, inputs, 128, 48), found, "pieces of 48");
      const larger = await runExpanded(gpu, test, inputs, 1 << 12, 1_000);
      assertClose(larger, Float64Array.from(found), shape.headCount * shape.valueDim, "one block");
    },
  );
}

withGpu("MlaExpanded survives scores that overflow exp", async (gpu) => {
  const random = randomSource(530);
  const test = caseOf(random, ODD, [[60, 20]]);
  const inputs = mlaInputs(gpu, random, test, "f32");
  for (let i = 0; i < inputs.queries.length; i++) inputs.queries[i]! *= 300;
  const wanted = referenceMla(test, inputs);
  for (const [i, value] of (await runExpanded(gpu, test, inputs, 64, 99)).entries()) {
    assert.ok(Math.abs(value - wanted[i]!) < 1e-2, `${i}: ${value} and ${wanted[i]}`);
  }
});

withGpu("MLA attends over 8,192 tokens", async (gpu) => {
  const random = randomSource(61);
  const shape = shapeOf(2, 24, 8, 8, 8);
  const test = caseOf(random, shape, [[8_191, 1], [5_000, 3]], { pageTokens: 64 });
  const inputs = mlaInputs(gpu, random, test, "bf16");
  assertClose(await runMla(gpu, test, inputs), referenceMla(test, inputs), 16, "8,192 tokens");
});

withGpu("MLA survives scores that overflow exp", async (gpu) => {
  const random = randomSource(62);
  const test = caseOf(random, ODD, [[600, 2]]);
  const inputs = mlaInputs(gpu, random, test, "f32");
  for (let i = 0; i < inputs.queries.length; i++) inputs.queries[i]! *= 300;
  const found = await runMla(gpu, test, inputs);
  const wanted = referenceMla(test, inputs);
  // A score of hundreds carries its rounding into the exponent: fewer digits are left.
  for (const [i, value] of found.entries()) {
    assert.ok(Math.abs(value - wanted[i]!) < 1e-2, `${i}: ${value} and ${wanted[i]}`);
  }
});

withGpu(
  "MLA gives a sequence the same bits alone, among others and in other pages",
  async (gpu) => {
    const random = randomSource(63);
    const test = caseOf(random, UNEVEN, [[300, 1], [0, 40], [700, 3], [30, 1]], { batchRows: 6 });
    const inputs = mlaInputs(gpu, random, test, "bf16");
    const together = await runMla(gpu, test, inputs);
    const queryWidth = UNEVEN.headCount * (UNEVEN.nopeDim + UNEVEN.sharedKeyDim);
    const width = UNEVEN.headCount * UNEVEN.valueDim;
    let row = 0;
    for (const [index, { past = 0, rowCount }] of test.segments.entries()) {
      const alone = caseOf(random, UNEVEN, [[past, rowCount]], { pageTokens: 11 });
      const found = await runMla(gpu, alone, {
        ...inputs,
        queries: inputs.queries.slice(row * queryWidth, (row + rowCount) * queryWidth),
        latents: [inputs.latents[index]!],
      });
      assertSameBits(found, together.slice(row * width, (row + rowCount) * width), `${index}`);
      row += rowCount;
    }
  },
);

withGpu("MLA takes kv_b in parts that cut through heads", async (gpu) => {
  const test = caseOf(randomSource(64), ODD, [[20, 5]]);
  for (const format of ["bf16", "fp8"] as const) {
    const inputs = mlaInputs(gpu, randomSource(65), test, format, 4_096);
    assert.ok(inputs.kvB.parts.length > 3);
    const found = await runMla(gpu, test, inputs);
    assertClose(found, referenceMla(test, inputs), 3 * 56, "parts");
  }
});

const CODE = defineKernel({
  name: "latent_code",
  source: `
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> quads: array<latent_quad>;
@group(0) @binding(3) var<storage, read_write> encoded: array<latent_quad>;
@group(0) @binding(4) var<storage, read_write> decoded: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> plain: array<vec4<f32>>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) {
    encoded[id.x] = encode_latent(values[id.x]);
    decoded[id.x] = decode_latent(quads[id.x]);
    plain[id.x] = decode_plain_latent(quads[id.x]);
    if (rare_latent(quads[id.x]) != 0u) {
      plain[id.x] = decoded[id.x];
    }
  }
}`,
  bindings: ["read", "read", "write", "write", "write"],
  params: { count: "u32" },
});

withGpu(
  "f16 latents are rounded to nearest even and read exactly, for every pattern",
  async (gpu) => {
    const random = randomSource(66);
    // In an order that puts different exponents and signs into a word.
    const halves = Uint16Array.from({ length: 65_536 }, (_, i) => i * 40_503);
    const values = new Float32Array(65_536);
    for (let i = 0; i < values.length; i++) {
      // Every f16, the middle between it and the next, and neighbours of that.
      const middle = (decodeF16(i & 0xfff8) + decodeF16((i & 0xfff8) + 1)) / 2;
      const choices = [decodeF16(i), middle, middle * (1 + 1e-7), middle * (1 - 1e-7)];
      values[i] = [...choices, 65_519.99, -65_520, 1e30, 1e-41 * random()][i % 8]!;
    }
    const recorder = new Recorder(gpu);
    const encoded = guarded(gpu, 32_768);
    const decoded = guarded(gpu, 65_536);
    const plain = guarded(gpu, 65_536);
    recorder.dispatch(
      await CODE.compile(gpu, {}, [latentPrelude("f16")]),
      [
        read(upload(gpu, values)),
        read(upload(gpu, halves)),
        write(encoded.buffer, encoded.offset, encoded.bytes),
        write(decoded.buffer, decoded.offset, decoded.bytes),
        write(plain.buffer, plain.offset, plain.bytes),
      ],
      { count: 16_384 },
      [256],
    );
    const foundDecoded = await takeGuarded(gpu, decoded, recorder);
    const foundPlain = await takeGuarded(gpu, plain);
    const foundEncoded = await takeGuarded(gpu, encoded);
    const bits = new Uint16Array(
      foundEncoded.buffer,
      foundEncoded.byteOffset,
      2 * foundEncoded.length,
    );
    for (let i = 0; i < 65_536; i++) {
      const wanted = decodeF16(halves[i]!);
      for (const found of [foundDecoded[i]!, foundPlain[i]!]) {
        assert.ok(Object.is(found, wanted), `decode ${halves[i]}: ${found}, ${wanted}`);
      }
      if (Number.isNaN(values[i]!)) assert.equal(bits[i]! & 0x7fff, 0x7e00);
      else assert.equal(bits[i], encodeF16(values[i]!), `encode ${values[i]}`);
    }
  },
);

/** An entry against its row: the latent within rounding, the shared key exactly, then zeros. */
function checkEntry(
  shape: MlaShape,
  format: LatentFormat,
  entry: Float64Array,
  row: Float32Array,
  weight: Float32Array,
): void {
  const { latentDim, sharedKeyDim } = shape;
  // Half a step of the format, and f32's own error.
  const relative = format === "f16" ? 2 ** -11 + 1e-6 : 1e-6;
  const absolute = format === "f16" ? 3.1e-8 : 0;
  for (const [c, value] of rmsNorm(row.slice(0, latentDim), weight, 1e-6).entries()) {
    const allowed = relative * Math.abs(value) + absolute;
    assert.ok(Math.abs(entry[c]! - value) <= allowed, `latent ${entry[c]}, ${value}`);
  }
  for (let c = 0; c < sharedKeyDim; c++) {
    const value = row[latentDim + c]!;
    const stored = format === "f16" ? decodeF16(encodeF16(value)) : value;
    assert.ok(Object.is(entry[latentDim + c], stored), `key ${value}`);
  }
  assert.ok(entry.subarray(latentDim + sharedKeyDim).every((value) => value === 0), "padding");
}

for (const latentFormat of ["f16", "f32"] as const) {
  withGpu(`mlaLatent() writes the rows' entries and nothing else, ${latentFormat}`, async (gpu) => {
    for (const shape of [TINY, ODD, UNEVEN]) {
      const random = randomSource(67);
      const pageTokens = 5;
      const { segments } = caseOf(random, shape, [[3, 9], [0, 1], [9, 2]], { pageTokens });
      const width = shape.latentDim + shape.sharedKeyDim;
      const compressed = normals(random, 12 * width);
      for (let row = 0; row < 12; row++) {
        const salts = [70_000, -65_519, 3e-8, -6e-5, -0, 1e-41, 2_049, -1e9];
        compressed[row * width + shape.latentDim] = salts[row % 8]!;
      }
      compressed.fill(0, 0, shape.latentDim);
      const weight = normals(random, shape.latentDim);
      const plan = planOf(segments);
      const capacity = {
        slots: 8,
        pages: 40,
        pageTokens,
        rows: 12,
        logitRows: 1,
        logitEdits: 1,
        sequences: 3,
        pagesPerSequence: 4,
        latentFormat,
      };
      const step = StepBuffers.create(gpu, capacity);
      step.upload(plan);
      const bytes = capacity.pages * pageTokens * latentEntryBytes(shape, latentFormat);
      const before = new Uint8Array(bytes).map((_, i) => i * 37 + 11);
      const cache = allocateLatents(gpu, shape, capacity);
      gpu.write(cache, 0, before);
      const recorder = new Recorder(gpu);
      mlaLatent(
        recorder,
        await compileMlaLatent(gpu, latentFormat),
        {
          compressed: read(upload(gpu, reordered(compressed, step.internalRows, false))),
          weight: read(upload(gpu, weight)),
          rows: step.rows,
          pages: step.pages,
          latents: write(cache),
        },
        shape,
        { pageTokens, epsilon: 1e-6 },
        12,
      );
      const found = new Uint8Array((await download(gpu, cache, bytes / 4, recorder)).buffer);
      const wanted = before.slice();
      const perEntry = 4 * latentQuads(shape);
      const valueBytes = latentFormat === "f16" ? 2 : 4;
      const decode = (from: Uint8Array) =>
        latentFormat === "f16"
          ? Float64Array.from(new Uint16Array(from.slice().buffer), decodeF16)
          : Float64Array.from(new Float32Array(from.slice().buffer));
      for (const { rowStart, rowCount, past, pages } of plan.sequences) {
        for (let i = 0; i < rowCount; i++) {
          const position = past + i;
          const page = pages[Math.floor(position / pageTokens)]!;
          const at = (page * pageTokens + position % pageTokens) * perEntry * valueBytes;
          const entry = found.slice(at, at + perEntry * valueBytes);
          wanted.set(entry, at);
          const row = compressed.subarray((rowStart + i) * width, (rowStart + i + 1) * width);
          checkEntry(shape, latentFormat, decode(entry), row, weight);
        }
      }
      assert.deepStrictEqual(found, wanted);
    }
  });
}

withGpu("MLA refuses what the adapter cannot hold or run right", (gpu) => {
  const capacity = {
    slots: 1,
    pages: 1 << 24,
    pageTokens: 64,
    rows: 1,
    logitRows: 1,
    logitEdits: 1,
  };
  const rest = { sequences: 1, pagesPerSequence: 1, latentFormat: "f16" as const };
  assert.throws(
    () => allocateLatents(gpu, ODD, { ...capacity, ...rest }),
    /wanted at most \d+ pages of 64 tokens, which one binding of \d+ bytes holds, found 16777216/,
  );
  assert.throws(
    () => compileMlaAttention(gpu, WIDE, "f16", 1 << 20),
    /dispatch "mla_attention": wanted at most 60000 loop turns/,
  );
  return Promise.resolve();
});
