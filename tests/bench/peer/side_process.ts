/** A side in a process of its own, with shader caches that nothing has filled yet. */
import { TextLineStream } from "./lines.ts";
import type { Measured, Ready, Request, SideOptions, Work } from "./work.ts";

const SCRIPT = decodeURIComponent(new URL("side.ts", import.meta.url).pathname);
/** Drivers keep compiled shaders below these. */
const CACHE_VARIABLES = ["XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];

export class SideProcess {
  readonly startedAt = performance.now();
  private readonly child: Deno.ChildProcess;
  private readonly input: WritableStreamDefaultWriter<Uint8Array>;
  private readonly lines: ReadableStreamDefaultReader<string>;
  private readonly encoder = new TextEncoder();

  /** `realtime` runs it under `chrt --rr 1`, which needs root. `cache` is made when needed. */
  constructor(options: SideOptions, realtime: boolean, cache: string) {
    Deno.mkdirSync(cache, { recursive: true });
    const args = ["run", "--quiet", "--no-check", "-A", SCRIPT, JSON.stringify(options)];
    const [program, before] = realtime ? ["chrt", ["--rr", "1", Deno.execPath()]] as const : [
      Deno.execPath(),
      [],
    ] as const;
    this.child = new Deno.Command(program, {
      args: [...before, ...args],
      env: Object.fromEntries(CACHE_VARIABLES.map((name) => [name, cache])),
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.input = this.child.stdin.getWriter();
    this.lines = this.child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  /** Resolves when its model is loaded; once, before anything is run. */
  async ready(): Promise<Ready> {
    return JSON.parse(await this.line());
  }

  async run(work: Work, seed: number): Promise<Measured> {
    const request: Request = { work, seed };
    await this.input.write(this.encoder.encode(`${JSON.stringify(request)}\n`));
    return JSON.parse(await this.line());
  }

  /** Ends it and waits for that. */
  async close(): Promise<void> {
    await this.input.close().catch(() => {});
    await this.child.status;
  }

  private async line(): Promise<string> {
    const { value, done } = await this.lines.read();
    if (done) throw new Error("run one side: wanted an answer, found that its process has ended");
    return value;
  }
}
