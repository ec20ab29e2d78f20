/** A step's kernels: their times beside the work that is known of them and the adapter's peak. */
import type { Peak } from "../../kernels/peak.ts";
import type { DispatchTime } from "../model/device.ts";
import type { KernelWork } from "./bench_work.ts";
import { rounded } from "./statistics.ts";

export type { Peak };

/** All dispatches of one kernel in a step. */
export interface KernelTime {
  readonly kernel: string;
  readonly dispatches: number;
  readonly microseconds: number;
  /** See bench_work.ts; null where it is not known. */
  readonly work: KernelWork | null;
  /** null where the work has none of it. */
  readonly bytesPerSecond: number | null;
  readonly integerOperationsPerSecond: number | null;
  readonly floatOperationsPerSecond: number | null;
  /** The peak that the kernel comes closest to. */
  readonly limit: keyof Peak | null;
  /** Share of that peak: the least time that its work takes by the time that it took. */
  readonly peakShare: number | null;
}

const RATES = {
  readBytesPerSecond: "bytes",
  integerOperationsPerSecond: "integerOperations",
  floatOperationsPerSecond: "floatOperations",
} as const;

/** Sums by kernel, the longest first. */
export function kernelTimes(
  times: readonly DispatchTime[],
  work: ReadonlyMap<string, KernelWork>,
  peak: Peak | null,
): KernelTime[] {
  const sums = new Map<string, { dispatches: number; microseconds: number }>();
  for (const { kernel, nanoseconds } of times) {
    const sum = sums.get(kernel) ?? { dispatches: 0, microseconds: 0 };
    sums.set(kernel, sum);
    sum.dispatches++;
    sum.microseconds += nanoseconds / 1_000;
  }
  return [...sums]
    .map(([kernel, sum]) => ({ kernel, ...sum, ...ratesOf(work.get(kernel), sum, peak) }))
    .sort((a, b) => b.microseconds - a.microseconds);
}

function ratesOf(
  work: KernelWork | undefined,
  { microseconds }: { readonly microseconds: number },
  peak: Peak | null,
): Omit<KernelTime, "kernel" | "dispatches" | "microseconds"> {
  const rate = (amount: number | undefined) =>
    amount === undefined || amount === 0 || microseconds === 0 ? null : amount / microseconds * 1e6;
  let limit: keyof Peak | null = null;
  let peakShare: number | null = null;
  for (const [name, amount] of Object.entries(RATES) as [keyof Peak, keyof KernelWork][]) {
    const found = rate(work?.[amount]);
    if (found === null || peak === null || found / peak[name] <= (peakShare ?? 0)) continue;
    [limit, peakShare] = [name, found / peak[name]];
  }
  return {
    work: work ?? null,
    bytesPerSecond: rate(work?.bytes),
    integerOperationsPerSecond: rate(work?.integerOperations),
    floatOperationsPerSecond: rate(work?.floatOperations),
    limit,
    peakShare,
  };
}

/** Kernels that take less of a step than this are left out of tables. */
const SHOWN_SHARE = 0.01;

/** A line for each kernel that takes a hundredth of the step or more, under a line of headings. */
export function kernelLines(kernels: readonly KernelTime[]): string[] {
  const total = kernels.reduce((sum, { microseconds }) => sum + microseconds, 0);
  const head = ["dispatches", "us", "of the step", "GB/s", "int TOPS", "f32 TFLOP/s", "of peak"];
  const rows = kernels.filter(({ microseconds }) => microseconds >= SHOWN_SHARE * total)
    .map((time) => ({
      name: time.kernel,
      cells: [
        `${time.dispatches}`,
        rounded(time.microseconds),
        percent(time.microseconds / total),
        scaled(time.bytesPerSecond, 1e9),
        scaled(time.integerOperationsPerSecond, 1e12),
        scaled(time.floatOperationsPerSecond, 1e12),
        time.peakShare === null ? "-" : `${percent(time.peakShare)} ${LIMITS[time.limit!]}`,
      ],
    }));
  return [{ name: "", cells: head }, ...rows].map(({ name, cells }) =>
    `  ${name.padEnd(20)}${cells.map((cell) => cell.padStart(12)).join("")}`.trimEnd()
  );
}

const LIMITS: Readonly<Record<keyof Peak, string>> = {
  readBytesPerSecond: "read",
  integerOperationsPerSecond: "int",
  floatOperationsPerSecond: "f32",
};

/** The adapter's peaks in one line. */
export function peakText(peak: Peak): string {
  return `${scaled(peak.readBytesPerSecond, 1e9)} GB/s read, ` +
    `${scaled(peak.integerOperationsPerSecond, 1e12)} int8 TOPS, ` +
    `${scaled(peak.floatOperationsPerSecond, 1e12)} f32 TFLOP/s`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

function scaled(value: number | null, unit: number): string {
  if (value === null) return "-";
  const number = value / unit;
  return number >= 0.1 ? rounded(number) : number.toPrecision(2);
}
