/** GET /props, as llama-server answers it: what a client may want to know of the server. */
import type { AppDependencies } from "./generation.ts";

export function showProps({ engine, generation }: AppDependencies): Response {
  const { id, contextLength, slots, device, deviceDescription } = engine.model;
  const { temperature, topK, topP, minP } = generation;
  return Response.json({
    default_generation_settings: {
      n_ctx: contextLength,
      params: { temperature, top_k: topK, top_p: topP, min_p: minP },
    },
    total_slots: slots,
    model_alias: id,
    modalities: { vision: false, audio: false },
    device,
    device_description: deviceDescription,
  });
}
