/** The Worker of one helper thread: works for a device until that is destroyed. */
import { bindingsOf, type CpuVariant } from "./cpu_module.ts";

/** What a helper is told before anything else. */
export interface HelperStart {
  readonly variant: CpuVariant;
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Address of the device's pool. */
  readonly pool: number;
  /** Number of the thread, from 1. */
  readonly thread: number;
}

/** What the types of a Worker's global scope call `self`. */
const scope = self as unknown as DedicatedWorkerGlobalScope;
const stackBytes = 2 ** 20;

scope.onmessage = async ({ data }: MessageEvent<HelperStart>) => {
  const bindings = bindingsOf(data.variant);
  const { module, memory } = data;
  const exports = bindings.initSync({ module, memory, thread_stack_size: stackBytes });
  const helper = new bindings.Helper(data.pool, data.thread);
  // Between two naps the event loop sees whether the Worker is to end.
  while (helper.help()) await new Promise((resolve) => setTimeout(resolve, 0));
  helper.free();
  exports.__wbindgen_thread_destroy(undefined, undefined, stackBytes);
  scope.close();
};
scope.postMessage("here");
