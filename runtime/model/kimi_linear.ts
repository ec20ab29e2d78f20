/** Kimi Linear as a list of blocks: what runs in which order; how is the device's business. */
import type { Device, ModelShape, StepPlan, StepResult } from "./device.ts";

/** What tests look at between blocks: `layer` = -1 after the embedding. */
export type StepObserver = (layer: number) => Promise<void>;

/**
 * Runs one step over all rows of `plan`: embedding, then per layer one mixer and one feed-forward
 * block, each added to the residual stream, then the head for the wanted rows.
 *
 * Throws when the device was lost. `observe` is awaited after the embedding and after each layer.
 */
export async function runStep(
  device: Device,
  shape: ModelShape,
  plan: StepPlan,
  observe?: StepObserver,
): Promise<StepResult> {
  device.begin(plan);
  device.embed();
  await observe?.(-1);
  for (const [index, layer] of shape.layers.entries()) {
    if (layer.mixer === "kda") device.kda(index);
    else device.mla(index);
    if (layer.feedForward === "moe") device.moe(index);
    else device.dense(index);
    await observe?.(index);
  }
  device.logits();
  return await device.finish();
}
