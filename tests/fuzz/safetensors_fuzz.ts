/**
 * Structure-aware fuzzing of the safetensors header. Each case changes a valid file in one to three
 * places, parses it, and checks what the parser let through against the format's own rules.
 *
 *   deno run tests/fuzz/safetensors_fuzz.ts [cases] [seed]
 */

import assert from "node:assert/strict";
import { ModelError } from "../../runtime/errors.ts";
import { parseHeader, readHeaderLength } from "../../runtime/weights/safetensors.ts";
import { randomIntegers } from "../tools/checkpoint_writer.ts";

/** What is fuzzed: takes a whole file, returns its tensors or throws a ModelError. */
export type Parser = (file: Uint8Array) => ParsedTensor[];

export interface ParsedTensor {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly byteLength: number;
}

export interface FuzzReport {
  readonly cases: number;
  readonly accepted: number;
  readonly slowestMs: number;
}

/** Longest that one small header may take. */
const MOST_MS = 50;

export const kedgeParser: Parser = (file) => {
  const length = readHeaderLength(file.subarray(0, 8), file.length, "f.safetensors");
  return parseHeader(file.subarray(8, 8 + length), file.length, "f.safetensors");
};

/** Runs `cases` cases. Throws an AssertionError that names seed and case at the first fault. */
export function fuzz(parser: Parser, cases: number, seed: number): FuzzReport {
  let accepted = 0;
  let slowestMs = 0;
  for (let index = 0; index < cases; index++) {
    const file = mutatedFile(randomIntegers(seed + Math.imul(index, 0x9e3779b1)));
    const started = performance.now();
    let tensors: ParsedTensor[] | null = null;
    try {
      tensors = parser(file);
    } catch (error) {
      const fine = error instanceof ModelError && !/[\n\r]/.test(error.message);
      assert.ok(fine, `seed ${seed}, case ${index}: threw ${error}`);
    }
    const elapsed = performance.now() - started;
    if (elapsed > MOST_MS) {
      // Another process may have held the core: a slow parser is slow again.
      const repeated = timeOf(() => parser(file));
      assert.ok(repeated <= MOST_MS, `seed ${seed}, case ${index}: took ${repeated} ms`);
    } else slowestMs = Math.max(slowestMs, elapsed);
    if (tensors === null) continue;
    accepted++;
    const fault = violatedRule(file, tensors);
    assert.equal(fault, null, `seed ${seed}, case ${index}: accepted ${fault}`);
  }
  return { cases, accepted, slowestMs };
}

function timeOf(work: () => unknown): number {
  const started = performance.now();
  try {
    work();
  } catch {
    // Only the time matters here.
  }
  return performance.now() - started;
}

const SIZES: Record<string, number> = { BF16: 2, F32: 4, F8_E4M3: 1, U8: 1, I64: 8, F16: 2 };

/** The format's rules, by other means than the parser's: null, or the one that is broken. */
function violatedRule(file: Uint8Array, tensors: readonly ParsedTensor[]): string | null {
  const headerBytes = new DataView(file.buffer).getBigUint64(0, true);
  if (headerBytes > BigInt(file.length - 8)) return "a header beyond the file";
  const start = 8 + Number(headerBytes);
  const owners = new Uint8Array(file.length - start);
  for (const { name, type, shape, begin, byteLength } of tensors) {
    const size = SIZES[type];
    if (size === undefined) return `type ${type}`;
    if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0)) return `shape of ${name}`;
    const product = shape.reduce((a, n) => a * BigInt(n), BigInt(size));
    if (product !== BigInt(byteLength)) return `${byteLength} bytes for ${name}`;
    if (begin < start || begin + byteLength > file.length) return `${name} outside the file`;
    for (let i = begin - start; i < begin - start + byteLength; i++) owners[i]!++;
  }
  if (!owners.every((count) => count === 1)) return "a byte with no owner or with two";
  const text = new TextDecoder().decode(file.subarray(8, start));
  const written = text.match(/"data_offsets"\s*:/g)?.length ?? 0;
  if (!text.includes("\\") && written !== tensors.length) return "a tensor twice";
  return null;
}

type Next = () => number;

interface Entry {
  name: string;
  dtype: string;
  shape: unknown[];
  offsets: unknown[];
}

const DTYPES = ["BF16", "F32", "F8_E4M3", "U8", "I64", "F16"];
const BAD_DTYPES = ["", "bf16", "F8", "Q4_0", "constructor", "__proto__", "F32 "];
const NUMBERS = [
  ..."0 1 2 3 4 7 8 64 -1 -0 0.5 1e3 1e308 1e400 4294967296 4503599627370496".split(" "),
  ..."9007199254740991 9007199254740992 9223372036854775808 18446744073709551615".split(" "),
  ...'null true "8" [] {}'.split(" "),
];
const NAMES = ["a", "a", "__proto__", "", "\\u0061", "x\\n", "n".repeat(300), "\\ud800"];
const TOKENS = ["{", "}", "[", "]", ",", ":", '"', "\\", "0", " ", "\u0000", "[[[[[[", "é"];

function pick<T>(next: Next, list: readonly T[]): T {
  return list[next() % list.length]!;
}

/** A valid file of 1 to 6 tensors, changed. One case in 16 stays as it is. */
function mutatedFile(next: Next): Uint8Array {
  const entries: Entry[] = [];
  let end = 0;
  for (let count = 1 + next() % 6; count > 0; count--) {
    const dtype = pick(next, DTYPES);
    const shape = Array.from({ length: next() % 4 }, () => next() % 5);
    const bytes = shape.reduce((a, b) => a * b, SIZES[dtype]!);
    entries.push({ name: `tensor${count}`, dtype, shape, offsets: [end, end += bytes] });
  }
  let changes = next() % 16 === 0 ? 0 : 1 + next() % 3;
  const textChange = changes > 0 && next() % 4 === 0;
  if (textChange) changes--;
  for (let i = 0; i < changes; i++) changeEntry(next, entries);
  let text = headerText(entries, next() % 3 === 0);
  if (textChange) text = changeText(next, text);
  return assemble(next, text, end);
}

function changeEntry(next: Next, entries: Entry[]): void {
  const entry = pick(next, entries);
  const changes: (() => void)[] = [
    () => entry.dtype = pick(next, DTYPES),
    () => entry.dtype = pick(next, BAD_DTYPES),
    () => entry.shape[next() % (entry.shape.length + 1)] = pick(next, NUMBERS),
    () => entry.shape = Array(next() % 12).fill(pick(next, NUMBERS)),
    () => entry.offsets[next() % 2] = pick(next, NUMBERS),
    // Both ends moved by the same: the length stays right, so only the tiling is wrong.
    () => {
      const by = next() % 5 - 2;
      entry.offsets = entry.offsets.map((n) => typeof n === "number" ? n + by : n);
    },
    () => entry.offsets = [...pick(next, entries).offsets],
    () => entry.offsets.reverse(),
    () => entry.offsets.length = next() % 4,
    () => entry.name = pick(next, NAMES),
    () => entry.name = pick(next, entries).name,
    () => entries.push({ ...entry }),
    () => entries.splice(next() % entries.length, entries.length > 1 ? 1 : 0),
    () => entries.reverse(),
  ];
  pick(next, changes)();
}

function headerText(entries: readonly Entry[], metadata: boolean): string {
  const list = (values: readonly unknown[]) => `[${Array.from(values, (v) => v ?? 0).join(",")}]`;
  const parts = entries.map(({ name, dtype, shape, offsets }) =>
    `"${name}":{"dtype":"${dtype}","shape":${list(shape)},"data_offsets":${list(offsets)}}`
  );
  if (metadata) parts.unshift(`"__metadata__":{"format":"pt"}`);
  return `{${parts.join(",")}}`;
}

function changeText(next: Next, text: string): string {
  const at = next() % text.length;
  const kind = next() % 4;
  if (kind === 0) return text.slice(0, at) + pick(next, TOKENS) + text.slice(at);
  if (kind === 1) return text.slice(0, at) + text.slice(at + 1 + next() % 4);
  if (kind === 2) return text.slice(0, at) + pick(next, TOKENS) + text.slice(at + 1);
  return text + " ".repeat(next() % 8);
}

/** Length, header and data; sometimes a wrong length or a file of the wrong size. */
function assemble(next: Next, text: string, dataBytes: number): Uint8Array {
  const header = new TextEncoder().encode(text);
  const fault = next() % 12;
  const extra = fault === 0 ? 1 + next() % 9 : fault === 1 ? -(1 + next() % 9) : 0;
  const file = new Uint8Array(Math.max(8, 8 + header.length + dataBytes + extra));
  file.set(header.subarray(0, file.length - 8), 8);
  let length = BigInt(header.length);
  if (fault === 2) length += BigInt(next() % 9) - 4n;
  if (fault === 3) length = pick(next, [0n, 1n, 2n ** 25n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]);
  new DataView(file.buffer).setBigUint64(0, BigInt.asUintN(64, length), true);
  return file;
}

if (import.meta.main) {
  const [cases, seed] = [Number(Deno.args[0] ?? 1_000_000), Number(Deno.args[1] ?? Date.now())];
  console.log({ seed, ...fuzz(kedgeParser, cases, seed) });
}
