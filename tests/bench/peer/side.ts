/**
 * One side of the comparison in a process of its own: SideOptions as JSON in the only argument, a
 * Ready line when the model is loaded, then one Measured line for each Request line.
 */
import { TextLineStream } from "./lines.ts";
import type { Request, Side, SideOptions } from "./work.ts";

const options: SideOptions = JSON.parse(Deno.args[0]!);
const side = await openSide(options);
console.log(JSON.stringify(side.ready));
const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream()).pipeThrough(
  new TextLineStream(),
);
for await (const line of lines) {
  const { work, seed }: Request = JSON.parse(line);
  console.log(JSON.stringify(await side.run(work, seed)));
}
await side.close();

/** Each side loads its own code only: its start is measured too. */
async function openSide(options: SideOptions): Promise<Side> {
  if (options.engine === "llama") {
    const { openLlamaSide } = await import("./llama_side.ts");
    return await openLlamaSide(options);
  }
  const { openKedgeSide } = await import("./kedge_side.ts");
  return await openKedgeSide(options);
}
