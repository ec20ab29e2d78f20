/** Runs the command line as a user does: through the launcher, with the permissions it gives. */

const LAUNCHER = decodeURIComponent(new URL("../../kedge", import.meta.url).pathname);
const DENO_FOLDER = Deno.execPath().replace(/\/[^/]*$/, "");

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A command whose standard output and error are piped. `env` comes on top of this process's. */
export function kedgeCommand(args: readonly string[], env: Record<string, string> = {}) {
  return new Deno.Command(LAUNCHER, {
    args: [...args],
    cwd: "/",
    env: { PATH: `${DENO_FOLDER}:${Deno.env.get("PATH") ?? ""}`, NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

export async function kedge(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Outcome> {
  const { code, stdout, stderr } = await kedgeCommand(args, env).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}
