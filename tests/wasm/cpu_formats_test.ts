/** Every code of every weight format, as an embedding row and as a factor. */
import assert from "node:assert/strict";
import type { CpuVariant } from "../../wasm/cpu_module.ts";
import type { ModelShape } from "../../wasm/cpu_types.ts";
import { dequantize, quantize, type StoredMatrix } from "../reference/formats.ts";
import { randomTensors } from "../reference/random_model.ts";
import { randomSource } from "../reference/random.ts";
import { beginStep, loadDevice, oddShape, smallCapacity, variants } from "./cpu_harness.ts";
import { wholeRows } from "../tools/logit_rows.ts";

const width = 16;

/** A matrix [rows, 16] with every code of the format, one column varied (or all of them). */
function allCodes(format: "f16" | "bf16" | "fp8", column: number | null): StoredMatrix {
  const size = format === "fp8" ? 1 : 2;
  const count = format === "fp8" ? 256 : 65536;
  const rows = column === null ? count / width : count;
  const bytes = new Uint8Array(rows * width * size);
  const view = new DataView(bytes.buffer);
  for (let code = 0; code < count; code++) {
    const at = column === null ? code : code * width + column;
    if (size === 1) view.setUint8(at, code);
    else view.setUint16(at * 2, code, true);
  }
  const scale = format === "fp8"
    ? { rowsPerScale: rows, columnsPerScale: width, values: Float32Array.of(1) }
    : null;
  return { format, rows, columns: width, bytes, scale };
}

function shapeOf(vocabularySize: number): ModelShape {
  return { ...oddShape, vocabularySize, hiddenSize: width, layers: [] };
}

async function deviceOf(embed: StoredMatrix, head: StoredMatrix, variant: CpuVariant) {
  const shape = shapeOf(embed.rows);
  const tensors = randomTensors(shape, { format: "f32" }, randomSource(1));
  tensors.set("embed", [embed]);
  tensors.set("head", [head]);
  tensors.set("norm", [quantize(new Float32Array(width).fill(1), 1, width, "f32")]);
  return await loadDevice(shape, tensors, variant, {
    ...smallCapacity,
    rows: 4096,
    pageTokens: 4096,
  });
}

function sameBits(found: Float32Array, wanted: Float64Array): void {
  assert.equal(found.length, wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(found[i], wanted[i])) assert.fail(`${i}: ${found[i]}, wanted ${wanted[i]}`);
  }
}

for (const variant of variants) {
  for (const format of ["f16", "bf16", "fp8"] as const) {
    Deno.test(`CpuDevice.embed() (${variant}) widens every ${format} code exactly`, async () => {
      const embed = allCodes(format, null);
      const head = quantize(new Float32Array(embed.rows * width), embed.rows, width, "f32");
      const device = await deviceOf(embed, head, variant);
      const tokens = Array.from({ length: embed.rows }, (_, row) => row);
      device.begin({
        tokens: Uint32Array.from(tokens),
        sequences: [{
          slot: 0,
          rowStart: 0,
          rowCount: tokens.length,
          past: 0,
          pages: Uint32Array.of(0),
        }],
        feeds: null,
        logits: [],
      });
      device.embed();
      sameBits(await device.readResidual(), dequantize(embed));
      device.destroy();
    });

    for (const rows of [1, 2, 3, 5]) {
      Deno.test(
        `CpuDevice.logits() (${variant}) multiplies by every ${format} code, ${rows} rows`,
        async () => {
          const head = allCodes(format, 7);
          const hot = new Float32Array(head.rows * width);
          // The norm of one large channel is 4 up to rounding and epsilon.
          for (let row = 0; row < head.rows; row++) hot[row * width + 7] = 2 ** 20;
          const device = await deviceOf(
            quantize(hot, head.rows, width, "f32"),
            head,
            variant,
          );
          const pages = Uint32Array.of(0);
          beginStep(device, [{ slot: 0, past: 0, tokens: [1, 2, 3, 4, 5].slice(0, rows), pages }]);
          device.embed();
          device.logits();
          const result = await device.finish().result();
          const { nonFinite } = result;
          const logits = await wholeRows(result, rows);
          const values = dequantize(head);
          for (let i = 0; i < logits.length; i++) {
            const wanted = Math.fround(4 * values[(i % head.rows) * width + 7]!);
            const found = logits[i]!;
            if (Number.isFinite(wanted)) {
              const bound = Math.abs(wanted) * 1e-6 + 2 ** -148;
              assert.ok(Math.abs(found - wanted) <= bound, `${i}: ${found}, wanted ${wanted}`);
            } else {
              assert.ok(Object.is(found, wanted), `${i}: ${found}, wanted ${wanted}`);
            }
          }
          assert.deepEqual([...nonFinite], Array(rows).fill(1));
          device.destroy();
        },
      );
    }
  }
}
