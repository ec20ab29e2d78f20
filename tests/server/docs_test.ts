/** The programs of docs/clients.md do what they say, against kedge-tiny. */
import { equal, notEqual } from "node:assert/strict";
import { startServer } from "./running.ts";

const DOCUMENT = new URL("../../docs/clients.md", import.meta.url);
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;
const DEFAULT_ADDRESS = "http://127.0.0.1:11500";

async function programsOf(document: string): Promise<string[]> {
  const fence = "```";
  const parts = (await Deno.readTextFile(new URL(document))).split(fence);
  return parts.filter((part) => part.startsWith("ts\n")).map((part) => part.slice(3));
}

Deno.test({
  name: "docs/clients.md: its programs run and print an answer",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    const programs = await programsOf(DOCUMENT.href);
    equal(programs.length, 4);
    const server = await startServer({ device: "cpu" });
    const directory = await Deno.makeTempDir();
    try {
      for (const [index, program] of programs.entries()) {
        const file = `${directory}/program${index}.ts`;
        await Deno.writeTextFile(file, program.replaceAll(DEFAULT_ADDRESS, server.url));
        const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
          args: ["run", "-A", "--no-check", "--config", CONFIG, file],
        }).output();
        equal(code, 0, new TextDecoder().decode(stderr));
        notEqual(new TextDecoder().decode(stdout).trim(), "");
      }
    } finally {
      await server.stop();
      await Deno.remove(directory, { recursive: true });
    }
  },
});
