/**
 * What HTTP costs: eight streams of the embedded model through a real socket, beside the same eight
 * sequences on the engine alone, in one run on the cpu device. Prints both and their ratio.
 *
 *   deno run -A tests/bench/http_bench.ts
 */
import { measureDecode } from "../../runtime/cli/bench_engine.ts";
import { median } from "../../runtime/cli/statistics.ts";
import { completionRequest, MODEL, readStream, startServer } from "../server/running.ts";

const STREAMS = 8;
const TOKENS = 128;
const ROUNDS = 5;

const server = await startServer({ slots: STREAMS });
const { engine, url } = server;
const config = JSON.parse(await Deno.readTextFile(`${MODEL}/generation_config.json`));
// Every stream makes all its tokens.
const logit_bias = Object.fromEntries(config.eos_token_id.map((id: number) => [id, -100]));

/** Tokens a second from when all streams have their first to when the first has its last. */
async function measureHttp(): Promise<number> {
  const times = await Promise.all(Array.from({ length: STREAMS }, async (_, stream) => {
    const fields = { prompt: "Once upon a time", max_tokens: TOKENS, seed: stream, stream: true };
    const response = await fetch(completionRequest(url, { ...fields, temperature: 1, logit_bias }));
    const began = performance.now();
    const [whole, timed] = response.body!.tee();
    const moments: number[] = [];
    for await (const chunk of timed) {
      const events = new TextDecoder().decode(chunk).split('"text"').length - 1;
      for (let event = 0; event < events; event++) moments.push(performance.now());
    }
    const { finishReasons } = await readStream(new Response(whole));
    if (finishReasons[0] !== "length") throw new Error(`stream ${stream} ended early`);
    return moments.length > 0 ? moments : [began];
  }));
  const begin = Math.max(...times.map((moments) => moments[0]!));
  const end = Math.min(...times.map((moments) => moments.at(-1)!));
  const counted = times.flat().filter((moment) => moment > begin && moment <= end).length;
  return counted / (end - begin) * 1000;
}

const rates: { http: number; alone: number }[] = [];
await measureHttp();
for (let round = 0; round < ROUNDS; round++) {
  const alone = (await measureDecode(engine, STREAMS, 1))!.tokensPerSecond;
  rates.push({ alone, http: await measureHttp() });
}
const [alone, http] = [median(rates.map((r) => r.alone)), median(rates.map((r) => r.http))];
console.log(`${engine.model.deviceDescription}, ${STREAMS} streams, medians of ${ROUNDS} rounds`);
console.log(`  engine alone  ${alone.toFixed(0)} tokens/s`);
console.log(`  through HTTP  ${http.toFixed(0)} tokens/s`);
console.log(`  ratio         ${median(rates.map((r) => r.http / r.alone)).toFixed(2)}`);
await server.stop();
Deno.exit(0);
