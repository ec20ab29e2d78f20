/** Arithmetic of dispatches. */

/** WebGPU's limit of workgroups a dimension. */
const GROUP_LIMIT = 65_535;

/**
 * llvmpipe silently ends an invocation after 65,535 turns of all its loops together; every kernel
 * stays below this on every adapter.
 */
const LOOP_TURNS_MAX = 60_000;

/** `count` workgroups as [x, y] with x y >= count; a kernel takes y * groups.x + x as its index. */
export function spread(count: number): [number, number] {
  const y = Math.ceil(count / GROUP_LIMIT);
  return y <= 1 ? [count, 1] : [Math.ceil(count / y), y];
}

/** Throws when one invocation of kernel `name` would loop more often than every adapter allows. */
export function checkLoops(name: string, turns: number): void {
  if (turns > LOOP_TURNS_MAX) {
    throw new Error(
      `dispatch "${name}": wanted at most ${LOOP_TURNS_MAX} loop turns, found ${turns}`,
    );
  }
}

/** Throws when kernel `name` needs more workgroup memory than the adapter has. */
export function checkWorkgroupMemory(
  name: string,
  bytes: number,
  limits: GPUSupportedLimits,
): void {
  const limit = limits.maxComputeWorkgroupStorageSize;
  if (bytes > limit) {
    throw new Error(
      `compile "${name}": wanted at most ${limit} bytes of workgroup memory, found ${bytes}`,
    );
  }
}
