import type { ModelShape } from "../../kernels/types.ts";

/** A small model none of whose sizes is a power of two, with some of them replaced. */
export function shapeOf(replaced: Partial<ModelShape>): ModelShape {
  return {
    vocabularySize: 97,
    hiddenSize: 60,
    layers: [{ mixer: "kda", feedForward: "dense" }, { mixer: "mla", feedForward: "moe" }],
    normEpsilon: 1e-5,
    latentNormEpsilon: 1e-6,
    kda: { headCount: 3, keyDim: 20, valueDim: 12, convolutionTaps: 4 },
    mla: { headCount: 3, latentDim: 28, nopeDim: 12, sharedKeyDim: 6, valueDim: 10 },
    denseIntermediateSize: 52,
    moe: {
      expertCount: 12,
      expertsPerToken: 3,
      intermediateSize: 40,
      sharedIntermediateSize: 40,
      routedScale: 2.446,
      renormalize: true,
    },
    ...replaced,
  };
}
