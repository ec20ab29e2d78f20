/** `kedge bench` on an adapter: its peak, and shares of it by kernel, both ways of a step. */
import assert from "node:assert/strict";
import { benchDevice, type DeviceBenchReport } from "../../runtime/cli/bench_device.ts";
import { kernelLines } from "../../runtime/cli/bench_kernels.ts";
import { syntheticModel } from "../../runtime/cli/bench_synthetic.ts";
import { parseModelConfig } from "../../runtime/model/config.ts";
import { smallConfig } from "../tools/checkpoint_writer.ts";

/** Whole groups of 32 everywhere, so that q4 takes the fused kernels. */
const FUSED_SIZES = {
  hidden_size: 128,
  intermediate_size: 96,
  moe_intermediate_size: 32,
  num_experts: 16,
  num_experts_per_token: 4,
  num_shared_experts: 1,
  kv_lora_rank: 32,
  qk_nope_head_dim: 32,
  qk_rope_head_dim: 16,
  v_head_dim: 32,
  linear_attn_config: {
    kda_layers: [1, 3],
    full_attn_layers: [2, 4],
    head_dim: 32,
    num_heads: 2,
    short_conv_kernel_size: 4,
  },
};

const EXPECTED = {
  q4: ["decode_up", "decode_down", "decode_out", "decode_kda_step", "decode_attention"],
  bf16: ["expert_matvec", "matvec", "kda_step", "mla_attention", "mla_absorb"],
} as const;

function checkReport(report: DeviceBenchReport, expected: readonly string[]): void {
  const { peak, decode, prefill, configureSeconds, compilation } = report;
  const { kernels, shaderSeconds, pipelineSeconds } = compilation;
  assert.ok(kernels > 20 && shaderSeconds > 0 && pipelineSeconds > 0);
  assert.ok(shaderSeconds + pipelineSeconds < configureSeconds);
  assert.ok(peak !== null, "wanted an adapter with timestamps");
  for (const rate of Object.values(peak)) assert.ok(Number.isFinite(rate) && rate > 0, `${rate}`);
  for (const speed of decode) assert.ok(speed.tokensPerSecond! > 0, `batch ${speed.batch}`);
  assert.deepEqual(decode.map(({ batch }) => batch), [1, 64]);
  const alone = decode[0]!.kernels;
  for (const name of expected) {
    const found = alone.find(({ kernel }) => kernel === name);
    assert.ok(found?.peakShare != null, `wanted a share of ${name}`);
  }
  for (const { kernels } of [...decode, ...prefill]) {
    const shares = kernels.filter(({ work }) => work !== null);
    assert.ok(shares.length > 3);
    for (const { kernel, peakShare, limit, work } of shares) {
      const text = `${kernel}: ${peakShare}, ${JSON.stringify(work)}`;
      assert.ok(Number.isFinite(peakShare) && peakShare! > 0 && limit !== null, text);
      assert.ok(Object.values(work!).every(Number.isFinite), text);
    }
    assert.ok(kernelLines(kernels).length > 1);
  }
}

for (const weights of ["q4", "bf16"] as const) {
  Deno.test(`benchDevice() gives shares of the peak with ${weights}, batch 64 too`, async () => {
    const { shape } = parseModelConfig({ ...smallConfig(), ...FUSED_SIZES }, "config.json");
    const report = await benchDevice("webgpu", syntheticModel(shape, weights), {
      contexts: [40],
      batches: [1, 64],
      prefills: [40],
      seconds: 0,
      poolBytes: 1e9,
    });
    checkReport(JSON.parse(JSON.stringify(report)), EXPECTED[weights]);
  });
}
