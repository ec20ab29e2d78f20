/** The references themselves, against worked examples. */
import assert from "node:assert/strict";
import { sigmoid } from "./activations.ts";
import { decodeBf16, decodeE4m3, decodeF16, encodeBf16, encodeE4m3, encodeF16 } from "./formats.ts";
import { dequantize, quantize } from "./formats.ts";
import { kdaRecurrence, l2Normalize, logDecay } from "./kda.ts";
import { route } from "./moe.ts";
import { randomSource } from "./random.ts";
import { gatedRmsNorm } from "./rms_norm.ts";
import { shortConvolution } from "./short_conv.ts";

function close(found: ArrayLike<number>, wanted: readonly number[], bound = 1e-10): void {
  assert.equal(found.length, wanted.length);
  wanted.forEach((value, i) => {
    assert.ok(Math.abs(found[i]! - value) <= bound, `element ${i}: ${found[i]}, wanted ${value}`);
  });
}

Deno.test("kdaRecurrence() gives the worked example of 3 key and 2 value channels", () => {
  const each = (width: number, f: (t: number, d: number) => number) =>
    Float64Array.from({ length: 4 * width }, (_, i) => f(Math.floor(i / width), i % width));
  const q = l2Normalize(each(3, (t, d) => Math.sin(1 + 3 * t + d)), 3, 3 ** -0.5);
  const k = l2Normalize(each(3, (t, d) => Math.cos(1 + 3 * t + d)), 3, 1);
  const v = each(2, (t, d) => Math.sin(0.5 * (2 * t + d)));
  const g = logDecay(
    each(3, (t, d) => 0.3 * t - 0.2 * d),
    Float64Array.of(0.5),
    Float64Array.of(-1, 0, 1),
  );
  const beta = Float64Array.of(0, 1, -1, 2).map(sigmoid);
  close(g.subarray(0, 3), [-0.5164812075, -0.9861642768, -1.7105284521]);
  close(g.subarray(9), [-1.0624304802, -1.8188463043, -2.8051562617]);
  close(q.subarray(0, 3), [0.3896186201, 0.4210236777, 0.0653415077]);
  close(k.subarray(0, 3), [0.4494425746, -0.3461656624, -0.8235107858]);
  const sizes = { heads: 1, keyDim: 3, valueDim: 2 };
  const { o, state } = kdaRecurrence(sizes, q, k, v, g, beta, new Float64Array(6));
  // deno-fmt-ignore
  close(o, [
    0, -0.0058591029, -0.0108131602, -0.0188405395,
    -0.0230562338, -0.0231921469, -0.0001825538, 0.0034113923,
  ]);
  // deno-fmt-ignore
  close(state, [
    -0.0858646253, 0.2092519533, 0.000234231, 0.0005896578, 0.0873616062, -0.2271141538,
  ]);
});

Deno.test("shortConvolution() applies the last tap to the current token, in any chunking", () => {
  const taps = Float64Array.of(0.1, 0.2, 0.3, 0.4);
  const wanted = [0.239475064, 0.8252861162, 1.7615941560, 2.8577223805, 3.9280551602];
  const u = Float64Array.of(1, 2, 3, 4, 5);
  const whole = shortConvolution(u, taps, new Float64Array(3), 1);
  close(whole.y, wanted);
  close(whole.tail, [3, 4, 5]);
  let tail = new Float64Array(3);
  u.forEach((value, t) => {
    const step = shortConvolution(Float64Array.of(value), taps, tail, 1);
    close(step.y, [wanted[t]!]);
    tail = Float64Array.from(step.tail);
  });
  close(tail, [3, 4, 5]);
});

Deno.test("route() selects with the bias and weighs without it", () => {
  const logits = Float64Array.of(0.2, -0.4, 1, 0.9, -1, 0.5);
  const bias = Float64Array.of(0, 0.5, -0.3, 0, 0.1, 0);
  const rule = { expertsPerToken: 2, routedScale: 2.446, renormalize: true };
  const { experts, weights } = route(rule, logits, bias);
  assert.deepEqual([...experts], [1, 3]);
  close(weights, [0.8825349804, 1.5634650196]);
});

Deno.test("route() breaks ties towards the lower index", () => {
  const rule = { expertsPerToken: 3, routedScale: 1, renormalize: true };
  const { experts } = route(rule, Float64Array.of(0, 1, 0, 0), new Float64Array(4));
  assert.deepEqual([...experts], [1, 0, 2]);
});

Deno.test("gatedRmsNorm() norms before it gates", () => {
  const found = gatedRmsNorm(
    Float64Array.of(1, -2, 3, 0.5),
    Float64Array.of(1, 1, 2, 1),
    Float64Array.of(0, 1, -1, 3),
    1e-5,
  );
  close(found, [0.2649060996, -0.7746475066, 0.8549306755, 0.2523426965]);
});

Deno.test("the formats' encoders undo their decoders for every finite code", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const half = decodeF16(bits);
    if (!Number.isNaN(half)) assert.equal(encodeF16(half), bits);
    const brain = decodeBf16(bits);
    if (!Number.isNaN(brain)) assert.equal(encodeBf16(brain), bits);
  }
  for (let bits = 0; bits < 256; bits++) {
    const value = decodeE4m3(bits);
    if ((bits & 0x7f) === 0x7f) assert.ok(Number.isNaN(value));
    else assert.equal(encodeE4m3(value), bits);
  }
  assert.equal(decodeE4m3(0x7e), 448);
  assert.equal(decodeE4m3(0x01), 2 ** -9);
});

Deno.test("encodeF16() rounds as the platform's Float16Array does, seed 3", () => {
  const random = randomSource(3);
  const half = new Float16Array(1);
  for (let i = 0; i < 100_000; i++) {
    const value = (random() - 0.5) * 2 ** (random() * 44 - 26);
    half[0] = value;
    assert.equal(decodeF16(encodeF16(value)), half[0]);
  }
});

Deno.test("quantize() and dequantize() put each scale over its own block", () => {
  const scale = { rowsPerScale: 2, columnsPerScale: 3, values: Float64Array.of(1, 2, 4, 8) };
  const values = Float64Array.from({ length: 15 }, (_, i) => {
    const row = Math.floor(i / 5);
    return scale.values[Math.floor(row / 2) * 2 + Math.floor((i % 5) / 3)]! * (1 + i % 2);
  });
  const stored = quantize(values, 3, 5, "fp8", scale);
  assert.deepEqual([...stored.bytes].map(decodeE4m3), Array.from(values, (_, i) => 1 + i % 2));
  assert.deepEqual(dequantize(stored), values);
});
