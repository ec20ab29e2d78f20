/** Shapes of workgroups: the table, what is refused, and how an adapter's class is found. */
import assert from "node:assert";
import { adapterClassOf, openTuned, readsFast } from "../../kernels/adapter_class.ts";
import { compileDecodeAttention } from "../../kernels/decode_attention.ts";
import { compileDecodeDown } from "../../kernels/decode_down.ts";
import { compileDecodeExperts } from "../../kernels/decode_experts.ts";
import { compileDecodeHead } from "../../kernels/decode_head.ts";
import { compileDecodeKdaIn } from "../../kernels/decode_kda_in.ts";
import { compileDecodeOut } from "../../kernels/decode_out.ts";
import { compileDecodeUp } from "../../kernels/decode_up.ts";
import { decodeWorkgroups, fitsWorkgroups } from "../../kernels/decode_workgroups.ts";
import { Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import {
  type AdapterClass,
  checkTuning,
  type Tuning,
  TUNINGS,
  tuningThreads,
} from "../../kernels/gpu/tuning.ts";
import { QProjections } from "../../kernels/q_projection.ts";
import type { ModelShape } from "../../kernels/types.ts";
import { WebGpuDevice } from "../../kernels/webgpu.ts";
import { readShape } from "../../runtime/cli/bench_synthetic.ts";
import { SHAPE } from "./decode_driver.ts";
import { withGpu } from "./harness.ts";

const CLASSES = Object.keys(TUNINGS) as AdapterClass[];
const MODELS: Readonly<Record<string, ModelShape>> = {
  "kedge-tiny": readShape(
    "model",
    decodeURIComponent(new URL("../../models/kedge-tiny/config.json", import.meta.url).pathname),
  ),
  "the 48B model": readShape("model", "48b"),
};
/** WebGPU's defaults, which every adapter has. */
const LEAST = { threads: 256, bytes: 16_384 };
/** What all adapters have that any Vulkan, Metal or D3D12 of today drives. */
const USUAL = { maxComputeInvocationsPerWorkgroup: 1_024, maxComputeWorkgroupStorageSize: 32_768 };

Deno.test("each class has numbers that the kernels can have, for the published shapes", () => {
  for (const adapterClass of CLASSES) {
    const tuning = TUNINGS[adapterClass];
    checkTuning(tuning, 1_024);
    for (const [name, shape] of Object.entries(MODELS)) {
      assert.ok(fitsWorkgroups(USUAL, tuning, shape), `${adapterClass}, ${name}`);
    }
  }
});

Deno.test("the integrated class stays within 256 threads and 16 KiB a workgroup", () => {
  const tuning = TUNINGS.integrated;
  checkTuning(tuning, LEAST.threads);
  for (const [name, shape] of Object.entries(MODELS)) {
    const { bytes } = decodeWorkgroups(tuning, shape);
    assert.ok(bytes <= LEAST.bytes, `${name}: ${bytes}`);
  }
  for (const { xRegisters, wRegisters, xThreads, wThreads } of tuning.prompt.tiles) {
    // As q_tile.ts counts them.
    const [x, weights] = [xRegisters * xThreads, wRegisters * wThreads];
    assert.ok(64 * (x + weights + 4) + 8 * (x + weights) <= LEAST.bytes, `${x} x ${weights}`);
  }
});

Deno.test("fitsWorkgroups() counts threads and bytes", () => {
  const shape = MODELS["the 48B model"]!;
  const { threads, bytes } = decodeWorkgroups(TUNINGS.discrete, shape);
  assert.equal(threads, 1_024);
  const limits = {
    maxComputeInvocationsPerWorkgroup: threads,
    maxComputeWorkgroupStorageSize: bytes,
  };
  const fits = (changed: Partial<typeof limits>) =>
    fitsWorkgroups({ ...limits, ...changed }, TUNINGS.discrete, shape);
  assert.ok(fits({}));
  assert.ok(!fits({ maxComputeInvocationsPerWorkgroup: threads - 1 }));
  assert.ok(!fits({ maxComputeWorkgroupStorageSize: bytes - 1 }));
});

/** Changes of the discrete numbers that no kernel can have. */
const WRONG: readonly [changes: Partial<Tuning>, message: string][] = [
  [{ projection: { lanes: 12, rows: 2 } }, '"projection.lanes": wanted one of 8, 16, 32, found 12'],
  [{ projection: { lanes: 16, rows: 3 } }, '"projection.rows": wanted one of 1, 2, 4, 8, found 3'],
  [
    { projection: { lanes: 8, rows: 2 } },
    '"projection.lanes": wanted at least batch.rows x batch.steps x projection.rows, 16, found 8',
  ],
  [{ out: { lanes: 64 } }, '"out.lanes": wanted one of 8, 16, 32, found 64'],
  [
    { out: { lanes: 8 }, batch: { rows: 8, steps: 2 } },
    '"out.lanes": wanted at least batch.rows x batch.steps, 16, found 8',
  ],
  [{ up: { lanes: 8, tile: 48, chunk: 4 } }, '"up.tile": wanted a multiple of 32, found 48'],
  [
    { up: { lanes: 8, tile: 32, chunk: 0 } },
    '"up.chunk": wanted a whole number from 1 to 16, found 0',
  ],
  [
    { up: { lanes: 8, tile: 256, chunk: 4 } },
    '"up.tile": wanted at most 1024 threads a workgroup, found 2048',
  ],
  [
    { experts: { rows: 3, tile: 64, steps: 4 } },
    '"experts.rows x experts.steps": wanted a multiple of up.lanes 8, found 12',
  ],
  [
    { experts: { rows: 4, tile: 64, steps: 16 } },
    '"experts.steps": wanted one of 1, 2, 4, 8, found 16',
  ],
  [{ down: { parts: 5 } }, '"down.parts": wanted a whole number from 1 to 4, found 5'],
  [{ attention: { heads: 12, positions: 4 } }, '"attention.heads": wanted a multiple of 8'],
  [{ attention: { heads: 16, positions: 2 } }, '"attention.positions": wanted one of 4, 8'],
  [{ batch: { rows: 3, steps: 2 } }, '"batch.rows": wanted one of 1, 2, 4, 8, found 3'],
  [{ prompt: { tiles: [], workgroups: 1 } }, '"prompt.tiles": wanted at least one tile'],
  [
    { prompt: { tiles: TUNINGS.discrete.prompt.tiles.slice(1), workgroups: 1 } },
    '"prompt.tiles.0": wanted 4 rows of x in the first tile, found 32',
  ],
  [
    { prompt: { tiles: TUNINGS.discrete.prompt.tiles.slice(0, 2), workgroups: 1 } },
    '"prompt.tiles": wanted 64 rows of x in the last tile, found 32',
  ],
  [
    {
      prompt: {
        tiles: [{ xRegisters: 4, wRegisters: 8, xThreads: 1, wThreads: 64 }],
        workgroups: 1,
      },
    },
    '"prompt.tiles.0 threads": wanted at least the rows of its longer side, 512, found 64',
  ],
];

Deno.test("checkTuning() names what the kernels or the adapter can't have", () => {
  for (const [changes, message] of WRONG) {
    const refused = (error: Error) => error.message.startsWith(`use tuning ${message}`);
    assert.throws(() => checkTuning({ ...TUNINGS.discrete, ...changes }, 1_024), refused, message);
  }
  assert.throws(() => checkTuning(TUNINGS.discrete, 512), /at most 512 threads .* found 1024/);
  assert.equal(Math.max(...Object.values(tuningThreads(TUNINGS.discrete))), 1_024);
});

withGpu(
  "readsFast() compares the adapter with a border and leaves no memory behind",
  async (gpu) => {
    const before = gpu.allocatedBytes;
    assert.equal(await readsFast(gpu, 1), true);
    assert.equal(await readsFast(gpu, 1e15), false);
    assert.equal(gpu.allocatedBytes, before);
  },
);

Deno.test({
  name: "readsFast() needs no timestamps, and a small adapter no measurement",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const adapter = await navigator.gpu.requestAdapter();
    const gpu = new Gpu(await adapter!.requestDevice(), "an adapter with the least limits", false);
    try {
      assert.ok(!gpu.device.features.has("timestamp-query"));
      assert.equal(await readsFast(gpu, 1), true);
      assert.equal(await readsFast(gpu, 1e15), false);
      assert.equal(gpu.tuning.adapterClass, "discrete");
      const compiled = gpu.compilation.kernels;
      assert.equal(await adapterClassOf(gpu, MODELS["the 48B model"]!), "integrated");
      assert.equal(gpu.compilation.kernels, compiled);
    } finally {
      gpu.destroy();
    }
  },
});

Deno.test({
  name: "openTuned() takes a class and numbers, and refuses what can't work",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const own = await openGpu({ software: true });
    const { adapterClass } = own.tuning;
    own.destroy();
    const device = await WebGpuDevice.create(SHAPE, { changes: { up: { chunk: 2 } } });
    if (adapterClass === "software") assert.match(device.description, /, tuned as software$/);
    device.destroy();
    const changes = { down: { parts: 2 }, up: undefined, attention: { heads: undefined } };
    const gpu = await openTuned(SHAPE, { adapterClass: "integrated", changes });
    assert.deepEqual(gpu.tuning, {
      adapterClass: "integrated",
      numbers: { ...TUNINGS.integrated, down: { parts: 2 } },
    });
    gpu.destroy();
    for (
      const [wrong, message] of [
        [{ out: { lanes: 7 } }, /^use tuning "out.lanes": wanted one of 8, 16, 32, found 7$/],
        [{ attention: { heads: 128 } }, /^use tuning: wanted at most \d+ bytes of memory a work/],
      ] as const
    ) {
      const refused = openTuned(MODELS["the 48B model"]!, { changes: wrong });
      await assert.rejects(refused, { message });
    }
  },
});

Deno.test({
  name: "kernels of the integrated class are built for an adapter with WebGPU's least limits",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const adapter = await navigator.gpu.requestAdapter();
    const gpu = new Gpu(await adapter!.requestDevice(), "an adapter with the least limits", false);
    const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = gpu.limits;
    assert.deepEqual([maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize], [
      LEAST.threads,
      LEAST.bytes,
    ]);
    const { hiddenSize: hidden, kda, mla, moe } = MODELS["the 48B model"]!;
    const matrix = { format: "q4", grid: {} } as const;
    const build = () =>
      Promise.all([
        compileDecodeKdaIn(gpu, matrix, "bf16", hidden, kda, 8),
        compileDecodeOut(gpu, matrix, "bf16", kda.headCount * kda.valueDim, kda.valueDim, 8),
        compileDecodeAttention(gpu, mla, "f16", 4_096),
        compileDecodeUp(gpu, matrix, hidden, moe),
        compileDecodeExperts(gpu, matrix, hidden, true),
        compileDecodeDown(gpu, matrix, moe.intermediateSize, moe.expertsPerToken + 1),
        compileDecodeHead(gpu, matrix, hidden, 8),
        QProjections.create(gpu, ["q4"]),
      ]);
    try {
      gpu.tune({ adapterClass: "integrated", numbers: TUNINGS.integrated });
      await build();
      gpu.check();
      gpu.tune({ adapterClass: "discrete", numbers: TUNINGS.discrete });
      await assert.rejects(build);
    } finally {
      gpu.destroy();
    }
  },
});
