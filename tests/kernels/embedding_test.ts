import assert from "node:assert";
import { Embedding } from "../../kernels/embedding.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { Recorder } from "../../kernels/gpu/recorder.ts";
import { Matrix } from "../../kernels/matrix.ts";
import { dequantize } from "../reference/formats.ts";
import { randomSource } from "../reference/random.ts";
import { CAPACITY } from "./capacity.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertSameBits, FORMATS, GROUPED_FORMATS, randomGroups, randomMatrix } from "./weights.ts";

const SEED = 51;

async function run(
  gpu: Gpu,
  embedding: Embedding,
  tokens: Uint32Array,
  width: number,
): Promise<Float32Array> {
  const output = guarded(gpu, tokens.length * width);
  const residual = gpu.buffer("residual", output.bytes);
  const recorder = new Recorder(gpu);
  embedding.setTokens(tokens, null);
  embedding.encode(recorder, residual, tokens.length, upload(gpu, new Uint32Array(2)));
  recorder.copy(residual, 0, output.buffer, output.offset, output.bytes);
  return await takeGuarded(gpu, output, recorder);
}

withGpu("embed() copies rows exactly in every format, over several parts", async (gpu) => {
  const random = randomSource(SEED);
  const [rows, columns] = [777, 123];
  for (const format of [...FORMATS, ...GROUPED_FORMATS]) {
    const scale = { rowsPerScale: 10, columnsPerScale: 7 };
    const wish = { rows, columns, scale, bindingLimitBytes: 40_000 };
    const { matrix, values } = format === "q8" || format === "q4"
      ? randomGroups(gpu, random, { ...wish, format })
      : randomMatrix(gpu, random, { ...wish, format });
    assert.ok(matrix.parts.length > 1);
    const embedding = await Embedding.create(gpu, CAPACITY, matrix);
    const tokens = Uint32Array.from({ length: 331 }, () => Math.floor(random() * rows));
    tokens.set([0, rows - 1, 5, 5]);
    const found = await run(gpu, embedding, tokens, columns);
    const wanted = Float32Array.from(
      found,
      (_, i) => values[0]![tokens[Math.floor(i / columns)]! * columns + i % columns]!,
    );
    assertSameBits(found, wanted, format);
  }
});

withGpu("embed() decodes every code of f16, bf16 and fp8 exactly", async (gpu) => {
  for (const format of ["f16", "bf16", "fp8"] as const) {
    const codes = format === "fp8" ? 256 : 65_536;
    const columns = codes / 256;
    const scale = format === "fp8" ? { rowsPerScale: 256, columnsPerScale: 1 } : null;
    const spec = { key: format, format, matrices: 1, rows: 256, columns, scale };
    const elements = format === "fp8" ? new Uint8Array(codes) : new Uint16Array(codes);
    elements.forEach((_, code) => elements[code] = code);
    const bytes = new Uint8Array(elements.buffer);
    const matrix = Matrix.allocate(gpu, spec);
    matrix.write(0, 0, bytes);
    if (scale !== null) matrix.writeScales(0, Float32Array.of(1));
    const tokens = Uint32Array.from({ length: 256 }, (_, row) => row);
    const found = await run(gpu, await Embedding.create(gpu, CAPACITY, matrix), tokens, columns);
    const wanted = dequantize({ format, rows: 256, columns, bytes, scale: null });
    found.forEach((value, code) => {
      assert.ok(Object.is(value, wanted[code]), `${format} ${code}: ${value} and ${wanted[code]}`);
    });
  }
});

withGpu("setTokens() refuses tokens outside the vocabulary and too many", async (gpu) => {
  const { matrix } = randomMatrix(gpu, randomSource(SEED), { format: "bf16", rows: 9, columns: 4 });
  const embedding = await Embedding.create(gpu, CAPACITY, matrix);
  assert.throws(
    () => embedding.setTokens(Uint32Array.of(8, 9), null),
    /wanted tokens below 9, found 9/,
  );
  const many = new Uint32Array(CAPACITY.rows + 1);
  assert.throws(() => embedding.setTokens(many, null), /wanted at most 400 tokens, found 401/);
});
