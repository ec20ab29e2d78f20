/** Chooses and opens the device that computes. */
import type { Device, ModelShape } from "../model/device.ts";
import { DeviceError } from "../errors.ts";
import { MAX_CPU_THREADS } from "../limits.ts";
import type { TuningChoice } from "../../kernels/adapter_class.ts";
import type { DeviceChoice } from "./protocol.ts";

/**
 * "auto": a hardware adapter when there is one, else the cpu. A software adapter only when "webgpu"
 * is named: it is for testing shaders, and the cpu device is ten times faster.
 * `tuning`: in place of what the webgpu device would choose for its kernels. Throws DeviceError.
 */
export async function openDevice(
  choice: DeviceChoice,
  shape: ModelShape,
  tuning?: TuningChoice,
): Promise<Device> {
  if (choice === "cpu") return await openCpu(shape, tuning);
  const { findAdapter } = await import("../../kernels/gpu/gpu.ts");
  const adapter = await findAdapter();
  if (choice === "auto" && (adapter === null || adapter.software)) {
    return await openCpu(shape, tuning);
  }
  if (adapter === null) {
    throw new DeviceError('open device "webgpu": wanted a WebGPU adapter, found none');
  }
  try {
    const { WebGpuDevice } = await import("../../kernels/webgpu.ts");
    return await WebGpuDevice.create(shape, tuning);
  } catch (error) {
    throw new DeviceError(error instanceof Error ? error.message : String(error));
  }
}

/** On all the cores that the system gives this process, up to a bound. */
async function openCpu(shape: ModelShape, tuning: TuningChoice | undefined): Promise<Device> {
  if (tuning !== undefined) {
    throw new DeviceError('use --tuning: wanted the device "webgpu", found "cpu"');
  }
  const { CpuDevice } = await import("../../wasm/cpu.ts");
  const threads = Math.min(navigator.hardwareConcurrency, MAX_CPU_THREADS);
  return new CpuDevice(shape, undefined, threads);
}
