import { checkLoops, checkWorkgroupMemory, spread } from "./gpu/groups.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { defineKernel, type Pipeline } from "./gpu/kernel.ts";
import { read, type Recorder, write } from "./gpu/recorder.ts";
import nanSource from "./lib/nan.wgsl" with { type: "text" };
import sigmoidSource from "./lib/sigmoid.wgsl" with { type: "text" };
import source from "./router.wgsl" with { type: "text" };
import type { MoeShape } from "./types.ts";

const PARAMS = {
  row_count: "u32",
  expert_count: "u32",
  experts_per_token: "u32",
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
  /** u32 [rowCount][expertsPerToken], best first. */
  readonly experts: GPUBuffer;
  /** f32 [rowCount][expertsPerToken]. */
  readonly weights: GPUBuffer;
}

/** Chooses each row's experts and their weights, as spelled out in router.wgsl. */
export function route(
  recorder: Recorder,
  pipeline: RouterPipeline,
  shape: MoeShape,
  { logits, bias, experts, weights }: Routing,
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
      renormalize: renormalize ? 1 : 0,
      routed_scale: routedScale,
    },
    spread(rowCount),
  );
}
