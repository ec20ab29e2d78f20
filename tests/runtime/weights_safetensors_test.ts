import assert from "node:assert/strict";
import { parseHeader, readHeaderLength } from "../../runtime/weights/safetensors.ts";
import { widen } from "../../runtime/weights/widen.ts";

function parse(header: string, dataBytes: number) {
  const bytes = new TextEncoder().encode(header);
  return parseHeader(bytes, 8 + bytes.length + dataBytes, "f.safetensors");
}

Deno.test("tensors come in the order of their bytes, with offsets from the file's start", () => {
  const header = '{"b":{"dtype":"F32","shape":[],"data_offsets":[6,10]},' +
    '"__metadata__":{"format":"pt"},' +
    '"a":{"dtype":"BF16","shape":[3,1],"data_offsets":[0,6]}}   ';
  const tensors = parse(header, 10);
  const start = 8 + header.length;
  assert.deepEqual(tensors, [
    {
      name: "a",
      file: "f.safetensors",
      type: "BF16",
      shape: [3, 1],
      elementCount: 3,
      begin: start,
      byteLength: 6,
    },
    {
      name: "b",
      file: "f.safetensors",
      type: "F32",
      shape: [],
      elementCount: 1,
      begin: start + 6,
      byteLength: 4,
    },
  ]);
});

Deno.test("empty tensors and an empty file are allowed by the format", () => {
  assert.deepEqual(parse("{}", 0), []);
  const empty = '{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}';
  assert.equal(parse(`{"a":${empty},"b":${empty}}`, 0).length, 2);
});

Deno.test("every element type has its size", () => {
  const bytesOfEight: Record<string, number> = { F4: 4, F6_E2M3: 6, F6_E3M2: 6 };
  const types = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 I16 U16 F16 BF16 I32 U32 F32 I64 U64 F64 C64";
  for (const type of types.split(" ")) {
    const bits = /\D(16|32|64)$/.exec(type)?.[1];
    bytesOfEight[type] = bits === undefined ? 8 : Number(bits);
  }
  for (const [dtype, bytes] of Object.entries(bytesOfEight)) {
    const entry = { dtype, shape: [8], data_offsets: [0, bytes] };
    assert.equal(parse(JSON.stringify({ a: entry }), bytes)[0]!.byteLength, bytes, dtype);
  }
  const odd = { a: { dtype: "F4", shape: [3], data_offsets: [0, 1] } };
  assert.throws(() => parse(JSON.stringify(odd), 1), /wanted a whole number of bytes/);
});

Deno.test("header length: 2 bytes to 32 MiB, inside the file", () => {
  const length = (value: bigint, fileBytes: number) => {
    const prefix = new Uint8Array(8);
    new DataView(prefix.buffer).setBigUint64(0, value, true);
    return readHeaderLength(prefix, fileBytes, "f");
  };
  assert.equal(length(2n, 10), 2);
  assert.equal(length(2n ** 25n, 2 ** 40), 2 ** 25);
  for (const [value, fileBytes] of [[1n, 99], [3n, 10], [2n ** 25n + 1n, 2 ** 40]] as const) {
    assert.throws(
      () => length(value, fileBytes),
      /^ModelError: read header of "f": wanted a header/,
    );
  }
});

Deno.test("header bombs are refused quickly", () => {
  const size = 16 * 2 ** 20;
  const entry = (i: number) => `"t${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;
  const bombs: Record<string, [string, RegExp]> = {
    depth: ["[".repeat(size), /at most 32 levels/],
    "wide array": [`[${"0,".repeat(size / 2)}0]`, /at most 1000000 JSON values/],
    "many objects": [`[${"{},".repeat(size / 3)}{}]`, /at most 1000000 JSON values/],
    "long string": [`"${"x".repeat(size)}"`, /wanted a JSON object, found string/],
    "too many tensors": [
      `{${Array.from({ length: 65_537 }, (_, i) => entry(i)).join(",")}}`,
      /at most 65536 tensors, found 65537/,
    ],
  };
  for (const [name, [header, expected]] of Object.entries(bombs)) {
    const started = performance.now();
    assert.throws(() => parse(header, 0), expected, name);
    const elapsed = performance.now() - started;
    assert.ok(elapsed < 2000, `${name} took ${elapsed} ms`);
  }
});

Deno.test("widening is exact for every f16 and bf16", () => {
  const bits = new Uint16Array(65_536).map((_, i) => i);
  const bytes = new Uint8Array(bits.buffer);
  const expected = (code: number, exponentBits: number, fractionBits: number) => {
    const most = 2 ** exponentBits - 1;
    const exponent = (code >> fractionBits) & most;
    const fraction = code & (2 ** fractionBits - 1);
    const sign = code >= 0x8000 ? -1 : 1;
    const bias = 2 ** (exponentBits - 1) - 1;
    if (exponent === most) return fraction === 0 ? sign * Infinity : NaN;
    if (exponent === 0) return sign * fraction * 2 ** (1 - bias - fractionBits);
    return sign * (2 ** fractionBits + fraction) * 2 ** (exponent - bias - fractionBits);
  };
  const half = widen(bytes, "F16");
  const brain = widen(bytes, "BF16");
  for (let code = 0; code < 65_536; code++) {
    assert.ok(Object.is(half[code], expected(code, 5, 10)), `f16 ${code}`);
    assert.ok(Object.is(brain[code], expected(code, 8, 7)), `bf16 ${code}`);
  }
});

Deno.test("widening reads any alignment", () => {
  const bytes = new Uint8Array(9);
  new DataView(bytes.buffer).setFloat32(1, 1.25, true);
  new DataView(bytes.buffer).setFloat32(5, -3, true);
  assert.deepEqual([...widen(bytes.subarray(1), "F32")], [1.25, -3]);
  assert.deepEqual([...widen(bytes.subarray(3), "BF16")].slice(0, 1), [1.25]);
});
