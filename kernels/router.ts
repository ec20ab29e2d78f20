import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import orderKeySource from "./lib/order_key.wgsl" with { type: "text" };
import sigmoidSource from "./lib/sigmoid.wgsl" with { type: "text" };
import source from "./router.wgsl" with { type: "text" };
import type { MoeShape } from "./types.ts";

const PARAMS = {
  row_count: "u32",
  expert_count: "u32",
  experts_per_token: "u32",
  choices: "u32",
  renormalize: "u32",
  routed_scale: "f32",
} as const;

const THREADS = 128;

export type RouterPipeline = Pipeline<typeof PARAMS>;

export const routerKernel = defineKernel({
  name: "router",
  source,
  preludes: [
    { name: "lib/nan.wgsl", source: nanSource },
    { name: "lib/order_key.wgsl", source: orderKeySource },
    { name: "lib/sigmoid.wgsl", source: sigmoidSource },
  ],
  bindings: ["read", "read", "write", "write"],
  params: PARAMS,
});

export function compileRouter(gpu: Gpu): Promise<RouterPipeline> {
  checkWorkgroupMemory("router", 8 * THREADS, gpu.limits);
  return routerKernel.compile(gpu);
}

/** What `route` reads and writes. */
export interface Routing {
  /** f32 [rowCount][expertCount]. */
  readonly logits: GPUBuffer;
  /** f32 [expertCount]. */
  readonly bias: GPUBuffer;
  /** u32 [rowCount][choices], best first, the shared expert last. */
  readonly experts: GPUBuffer;
  /** f32 [rowCount][choices]. */
  readonly weights: GPUBuffer;
  /** The experts of a token, and one more where the shared expert is among the choices. */
  readonly choices: number;
}

/** Chooses each row's experts and their weights, as spelled out in router.wgsl. */
export function route(
  recorder: Recorder,
  pipeline: RouterPipeline,
  shape: MoeShape,
  { logits, bias, experts, weights, choices }: Routing,
  rowCount: number,
): void {
  const { expertCount, expertsPerToken, renormalize, routedScale } = shape;
  if (expertsPerToken > expertCount) {
    throw new Error(
      `route: wanted at most ${expertCount} experts a token, found ${expertsPerToken}`,
    );
  }
  checkLoops("router", expertsPerToken * (Math.ceil(expertCount / THREADS) + 9));
  recorder.dispatch(
    pipeline,
    [read(logits), read(bias), write(experts), write(weights)],
    {
      row_count: rowCount,
      expert_count: expertCount,
      experts_per_token: expertsPerToken,
      choices,
      renormalize: renormalize ? 1 : 0,
      routed_scale: routedScale,
    },
    spread(rowCount),
  );
}
