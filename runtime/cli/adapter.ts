/** Looks for a WebGPU adapter, and puts a software one where there is none. */
import { ADAPTER_PROBE_MS } from "../limits.ts";

export interface AdapterReport {
  readonly description: string;
  /** Computes on the CPU: for testing shaders, not for serving. */
  readonly software: boolean;
}

/** What gives Debian and Ubuntu a software adapter. */
const INSTALL_COMMAND =
  "apt-get update && apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1";

/** Asks a child process, since a bad driver can end the process that asks. Null: no adapter. */
export async function probeAdapter(): Promise<AdapterReport | null> {
  const program = decodeURIComponent(new URL("./adapter_probe.ts", import.meta.url).pathname);
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--no-prompt", "--allow-read", program],
    stdin: "null",
    stderr: "null",
    signal: AbortSignal.timeout(ADAPTER_PROBE_MS),
  }).output();
  return success ? JSON.parse(new TextDecoder().decode(stdout)) : null;
}

/**
 * An adapter for the shader tests: the one that is there, else software Vulkan installed now (as
 * root, with apt). Null, after printing what would install it, where neither is to be had.
 */
export async function ensureAdapter(): Promise<AdapterReport | null> {
  const found = await probeAdapter();
  if (found !== null) return found;
  if (Deno.uid() !== 0 || !await hasApt()) {
    console.log("find a WebGPU adapter: found none; software Vulkan is enough for the tests:");
    console.log(`  sudo sh -c '${INSTALL_COMMAND}'`);
    return null;
  }
  console.log("find a WebGPU adapter: found none; installing software Vulkan with apt-get");
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", INSTALL_COMMAND],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
  }).output();
  if (success) {
    const installed = await probeAdapter();
    if (installed === null) console.log("find a WebGPU adapter: found none after installing one");
    return installed;
  }
  console.log(`install software Vulkan: "${INSTALL_COMMAND}" failed`);
  console.log(new TextDecoder().decode(stderr.length > 0 ? stderr : stdout).trimEnd());
  return null;
}

async function hasApt(): Promise<boolean> {
  try {
    return (await new Deno.Command("apt-get", { args: ["--version"], stdout: "null" }).output())
      .success;
  } catch {
    return false;
  }
}
