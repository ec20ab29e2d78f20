/** decode_embed: embedded rows exactly, and their activation groups. */
import assert from "node:assert";
import { compileDecodeEmbed, decodeEmbed } from "../../kernels/decode_embed.ts";
import { FEED } from "../../kernels/feed_tokens.ts";
import { read, Recorder, write } from "../../kernels/gpu/recorder.ts";
import { normals, randomSource } from "../reference/random.ts";
import { guarded, takeGuarded, upload, withGpu } from "./harness.ts";
import { assertSameBits, FORMATS, GROUPED_FORMATS, randomGroups, randomMatrix } from "./weights.ts";

withGpu("decode_embed() embeds rows exactly and rounds their groups", async (gpu) => {
  const random = randomSource(91);
  const [rows, columns, rowStart, rowCount] = [777, 288, 2, 5];
  for (const format of [...FORMATS, ...GROUPED_FORMATS]) {
    const scale = { rowsPerScale: 10, columnsPerScale: 7 };
    const wish = { rows, columns, scale, bindingLimitBytes: 120_000 };
    const { matrix, values } = format === "q8" || format === "q4"
      ? randomGroups(gpu, random, { ...wish, format })
      : randomMatrix(gpu, random, { ...wish, format });
    assert.ok(matrix.parts.length > 1);
    const tokens = Uint32Array.from([3, 4, 0, rows - 1, 5, 5, 400]);
    const best = new Uint32Array(2 * 2 * 256).fill(9);
    best[2 * 256 + 1] = tokens[4]!;
    const norm = normals(random, columns);
    const residual = guarded(gpu, (rowStart + rowCount) * columns);
    const scaled = guarded(gpu, rowCount * columns);
    const groups = guarded(gpu, 12 * rowCount * columns / 32);
    const recorder = new Recorder(gpu);
    decodeEmbed(
      recorder,
      await compileDecodeEmbed(gpu, format, "q8"),
      matrix,
      {
        tokens: read(upload(gpu, tokens.map((token, row) => row === 4 ? FEED + 1 : token))),
        best: read(upload(gpu, best)),
        norm: read(upload(gpu, norm)),
        residual: write(residual.buffer, residual.offset, residual.bytes),
        groups: write(groups.buffer, groups.offset, groups.bytes),
        scaled: write(scaled.buffer, scaled.offset, scaled.bytes),
      },
      { rowStart, rowCount, evenFirst: 0 },
    );
    const found = await takeGuarded(gpu, residual, recorder);
    const own = found.subarray(rowStart * columns);
    assert.ok(found.subarray(0, rowStart * columns).every(Number.isNaN), "rows of prompts");
    const wanted = own.map((_, i) =>
      values[0]![tokens[rowStart + Math.floor(i / columns)]! * columns + i % columns]!
    );
    assertSameBits(own, wanted, format);
    const y = await takeGuarded(gpu, scaled);
    assertSameBits(y, wanted.map((value, i) => value * norm[i % columns]!), format);
    const bytes = new Int8Array((await takeGuarded(gpu, groups)).slice().buffer);
    const floats = new Float32Array(bytes.buffer);
    const words = new Int32Array(bytes.buffer);
    const rowGroups = columns / 32;
    for (let group = 0; group < y.length / 32; group++) {
      // Quads of a group are rowGroups apart.
      const quad = 3 * rowGroups * Math.floor(group / rowGroups) + group % rowGroups;
      const info = 4 * (quad + 2 * rowGroups);
      const scale = floats[info]!;
      let [sum, squares] = [0, 0];
      for (let i = 0; i < 32; i++) {
        const code = bytes[16 * (quad + Math.floor(i / 16) * rowGroups) + i % 16]!;
        sum += code;
        squares += wanted[32 * group + i]! ** 2;
        assert.ok(Math.abs(code * scale - y[32 * group + i]!) <= 0.5001 * scale, `${format} ${i}`);
      }
      assert.equal(words[info + 1], sum);
      assert.ok(Math.abs(floats[info + 2]! - squares) <= 1e-5 * squares, format);
    }
  }
});
