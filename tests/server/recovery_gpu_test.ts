/** A GPU that is lost while requests run. */
import { golden, survive } from "./recovery.ts";

Deno.test("engine on webgpu: a lost device ends the requests and serves again", async () => {
  const wanted = await golden("webgpu");
  for (const step of [1, 6]) {
    const recovery = await survive("webgpu", "device_lost", step, wanted);
    console.log(`serving again after ${recovery.toFixed(0)} ms`);
  }
});
