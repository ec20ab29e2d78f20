import assert from "node:assert/strict";
import { ModelError } from "../../runtime/errors.ts";
import { fuzz, kedgeParser, type ParsedTensor, type Parser } from "./safetensors_fuzz.ts";

const SEED = 20_260_727;
const CASES = 60_000;

Deno.test(`fuzz safetensors headers: ${CASES} cases, seed ${SEED}`, () => {
  const { accepted } = fuzz(kedgeParser, CASES, SEED);
  // Neither all refused nor all taken: the cases reach past the first checks.
  assert.ok(accepted > CASES / 20 && accepted < CASES / 2, `${accepted} accepted`);
});

/** A parser with one check missing, and the fault that the fuzzer has to see in it. */
interface Canary {
  readonly name: string;
  readonly parser: Parser;
  readonly fault: RegExp;
}

const CANARIES: Canary[] = [
  {
    name: "lets gaps and overlaps through",
    parser: without(/a gap$|an overlap$/, { tiling: false, length: true }),
    fault: /accepted a byte with no owner or with two/,
  },
  {
    name: "lets a file of the wrong size through",
    parser: without(/as its header says/, { tiling: false, length: true }),
    fault: /accepted (a byte with no owner|.* outside the file)/,
  },
  {
    name: "trusts lengths",
    parser: without(/, found data_offsets/, { tiling: true, length: false }),
    fault: /accepted .* bytes for /,
  },
  {
    name: "takes the last of two equal keys",
    parser: without(/once, found it twice$/, { tiling: true, length: true }),
    fault: /accepted a tensor twice/,
  },
  {
    name: "throws what it likes",
    parser: (file) => {
      try {
        return kedgeParser(file);
      } catch (error) {
        throw new RangeError((error as Error).message);
      }
    },
    fault: /threw RangeError/,
  },
];

/** kedgeParser, but what it refuses with `check` goes to a careless parser. */
function without(check: RegExp, rest: { tiling: boolean; length: boolean }): Parser {
  return (file) => {
    try {
      return kedgeParser(file);
    } catch (error) {
      if (!check.test((error as Error).message)) throw error;
      return careless(file, rest);
    }
  };
}

/** A parser as one would write it in a hurry. */
function careless(file: Uint8Array, check: { tiling: boolean; length: boolean }): ParsedTensor[] {
  const sizes: Record<string, number> = { BF16: 2, F32: 4, F8_E4M3: 1, U8: 1, I64: 8, F16: 2 };
  try {
    const length = Number(new DataView(file.buffer).getBigUint64(0, true));
    const json = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
    let expected = 0;
    const tensors: ParsedTensor[] = [];
    for (const [name, entry] of Object.entries(json)) {
      if (name === "__metadata__") continue;
      const { dtype, shape, data_offsets: [begin, end] } = entry as {
        dtype: string;
        shape: number[];
        data_offsets: number[];
      };
      const bytes = shape.reduce((a, b) => a * b, sizes[dtype]!);
      if (check.length && bytes !== end! - begin!) throw new Error("length");
      if (check.tiling && begin !== expected) throw new Error("tiling");
      expected = end!;
      tensors.push({
        name,
        type: dtype,
        shape,
        begin: 8 + length + begin!,
        byteLength: end! - begin!,
      });
    }
    if (check.tiling && 8 + length + expected !== file.length) throw new Error("size");
    return tensors;
  } catch (error) {
    throw new ModelError(`careless: ${(error as Error).message.replace(/[\n\r]/g, " ")}`);
  }
}

for (const { name, parser, fault } of CANARIES) {
  Deno.test(`the fuzzer catches a parser that ${name}`, () => {
    assert.throws(() => fuzz(parser, CASES, SEED), (error) => {
      assert.ok(error instanceof assert.AssertionError);
      assert.match(error.message, fault);
      return true;
    });
  });
}
