/** Kimi Linear as a list of blocks: what runs in which order; how is the device's business. */
import type { Device, ModelShape, PendingStep, StepPlan, StepResult } from "./device.ts";

/** What tests look at between blocks: `layer` = -1 after the embedding. */
export type StepObserver = (layer: number) => Promise<void>;

/**
 * Starts one step over all rows of `plan`: embedding, then per layer one mixer and one feed-forward
 * block, each added to the residual stream, then the head for the wanted rows.
 */
export function startStep(device: Device, shape: ModelShape, plan: StepPlan): PendingStep {
  device.begin(plan);
  device.embed();
  shape.layers.forEach((_, layer) => runLayer(device, shape, layer));
  device.logits();
  return device.finish();
}

/** The same step, with a stop for `observe` after the embedding and after each layer. */
export async function observeStep(
  device: Device,
  shape: ModelShape,
  plan: StepPlan,
  observe: StepObserver,
): Promise<StepResult> {
  device.begin(plan);
  device.embed();
  await observe(-1);
  for (const layer of shape.layers.keys()) {
    runLayer(device, shape, layer);
    await observe(layer);
  }
  device.logits();
  return await device.finish().result();
}

function runLayer(device: Device, { layers }: ModelShape, layer: number): void {
  const { mixer, feedForward } = layers[layer]!;
  if (mixer === "kda") device.kda(layer);
  else device.mla(layer);
  if (feedForward === "moe") device.moe(layer);
  else device.dense(layer);
}
