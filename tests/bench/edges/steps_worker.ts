/** An engine's Worker without an engine: one token a stream and step, at the step's pace. */
import type { EngineStats } from "../../../runtime/engine/engine.ts";
import { packEvents, type RequestEvent, type ToWorker } from "../../../runtime/engine/protocol.ts";

const { stepMs, ids, stats } = await new Promise<
  { stepMs: number; ids: Uint32Array; stats: EngineStats }
>((resolve) => self.onmessage = ({ data }: MessageEvent) => resolve(data));

interface Stream {
  readonly maxTokens: number;
  made: number;
}

const streams = new Map<number, Stream>();
self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "submit") {
    streams.set(data.id, { maxTokens: data.request.maxTokens, made: 0 });
  } else if (data.type === "cancel") streams.delete(data.id);
  else if (data.type === "close") self.postMessage({ type: "closed" });
};

let next = performance.now();
setInterval(() => {
  // Timers are coarse: as many steps as are due.
  for (; next <= performance.now(); next += stepMs) step();
}, stepMs / 4);

function step(): void {
  const events: RequestEvent[] = [];
  for (const [id, stream] of streams) {
    const token = ids[(stream.made++ + 31 * id) % ids.length]!;
    events.push({ id, event: { type: "token", id: token, logprob: null } });
    if (stream.made < stream.maxTokens) continue;
    const timings = { queuedMs: 0, prefillMs: 0, decodeMs: 0 };
    events.push({ id, event: { type: "done", reason: "length", timings } });
    streams.delete(id);
  }
  if (events.length > 0) {
    self.postMessage({ type: "step", events: packEvents(events), stats });
  }
}
