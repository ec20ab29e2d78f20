/** The oracle tests of one device; registered by one file a device. */
import assert from "node:assert";
import { argmax, CHECKPOINTS, difference, GoldenModel, type OpenDevice } from "./golden.ts";

/** With f32 latents: the target of all logits, and of everything inside the model. */
const LOGIT_LARGEST = 5e-3;
const LOGIT_MEAN = 5e-4;
const INNER_LARGEST = 5e-3;
const INNER_MEAN = 2e-4;
/** With f16 latents an expert that flips at a near tie moves logits by whole units. */
const F16_LOGIT_MEAN = 1e-2;
const F16_AGREEMENT = 0.99;
const CHUNK_LARGEST = 1e-4;
/** Router weights whose experts differ must be this close to a tie in the oracle. */
const ROUTER_LARGEST = 1e-3;

export function registerGoldenTests(kind: string, open: OpenDevice): void {
  for (const name of CHECKPOINTS) {
    Deno.test({
      name: `${kind} equals the oracle on ${name} with f32 latents`,
      sanitizeResources: false,
      sanitizeOps: false,
      fn: async (t) => {
        const model = await GoldenModel.load(name, open, "f32");
        let whole = new Float32Array();
        await t.step("logits of the prompt", async () => {
          whole = await model.prefill(Infinity) as Float32Array<ArrayBuffer>;
          const distance = difference(whole, model.values("logits"));
          console.log(`${kind} ${name} f32: ${describe(distance)}`);
          assert.ok(distance.largest <= LOGIT_LARGEST, `largest ${distance.largest}`);
          assert.ok(distance.mean <= LOGIT_MEAN, `mean ${distance.mean}`);
          assert.strictEqual(model.agreement(whole), 1);
        });
        await t.step("states and latents after the prompt", () => checkStates(model));
        await t.step("residual stream and router choices", () => checkInside(model));
        for (const chunk of [1, 7, 64]) {
          await t.step(`prefill in pieces of ${chunk}`, async () => {
            const distance = difference(await model.prefill(chunk), whole);
            assert.ok(distance.largest <= CHUNK_LARGEST, `largest ${distance.largest}`);
          });
        }
        await t.step("greedy tokens", () => checkGreedy(model));
        model.device.destroy();
      },
    });
    Deno.test({
      name: `${kind} is close to the oracle on ${name} with f16 latents`,
      sanitizeResources: false,
      sanitizeOps: false,
      fn: async () => {
        const model = await GoldenModel.load(name, open, "f16");
        const logits = await model.prefill(64);
        const distance = difference(logits, model.values("logits"));
        const agreement = model.agreement(logits);
        console.log(`${kind} ${name} f16: ${describe(distance)}, agreement ${agreement}`);
        assert.ok(distance.mean <= F16_LOGIT_MEAN, `mean ${distance.mean}`);
        assert.ok(agreement >= F16_AGREEMENT, `agreement ${agreement}`);
        model.device.destroy();
      },
    });
  }
}

function describe(distance: { largest: number; mean: number }): string {
  return `largest ${distance.largest.toExponential(1)}, mean ${distance.mean.toExponential(1)}`;
}

function assertInner(found: ArrayLike<number>, wanted: ArrayLike<number>, what: string): void {
  const { largest, mean } = difference(found, wanted);
  assert.ok(largest <= INNER_LARGEST && mean <= INNER_MEAN, `${what}: ${largest}, mean ${mean}`);
}

async function checkStates(model: GoldenModel): Promise<void> {
  const { mla } = model.shape;
  const rows = model.promptIds.length;
  for (const [layer, { mixer }] of model.shape.layers.entries()) {
    if (mixer === "kda") {
      const state = await model.device.readState(layer, 1);
      assertInner(state.recurrent, model.values(`cache.${layer}.recurrent_states`), `KDA ${layer}`);
      assertInner(state.convolution, oracleTails(model, layer), `convolution ${layer}`);
    } else {
      const latents = await model.latents(layer);
      const keys = model.values(`cache.${layer}.keys`);
      const shared = model.values(`cache.${layer}.values`);
      const width = mla.latentDim + mla.sharedKeyDim;
      for (let row = 0; row < rows; row++) {
        const latent = latents.subarray(row * width, row * width + mla.latentDim);
        const key = latents.subarray(row * width + mla.latentDim, (row + 1) * width);
        const at = `layer ${layer} position ${row}`;
        assertInner(latent, slice(keys, row, mla.latentDim), `latent, ${at}`);
        assertInner(key, slice(shared, row, mla.sharedKeyDim), `shared key, ${at}`);
      }
    }
  }
}

function slice(values: Float32Array, row: number, width: number): Float32Array {
  return values.subarray(row * width, (row + 1) * width);
}

/** The oracle keeps [channels, taps] with the oldest first; Kedge the last taps - 1 as rows. */
function oracleTails(model: GoldenModel, layer: number): Float32Array {
  const stored = model.values(`cache.${layer}.conv_states`);
  const { convolutionTaps: taps } = model.shape.kda;
  const channels = stored.length / taps;
  const tails = new Float32Array((taps - 1) * channels);
  for (let channel = 0; channel < channels; channel++) {
    for (let tap = 1; tap < taps; tap++) {
      tails[(tap - 1) * channels + channel] = stored[channel * taps + tap]!;
    }
  }
  return tails;
}

async function checkInside(model: GoldenModel): Promise<void> {
  const { hiddenSize, layers } = model.shape;
  const positions = Array.from(model.oracle.get("hidden_positions")!.values);
  const hidden = model.values("hidden");
  const last = layers.length - 1;
  await model.prefill(Infinity, async (layer) => {
    const residual = await model.device.readResidual();
    for (const [index, position] of positions.entries()) {
      const wanted = slice(hidden, (layer + 1) * positions.length + index, hiddenSize);
      const row = slice(residual, position, hiddenSize);
      const found = layer === last ? finalNorm(model, row) : row;
      assertInner(found, wanted, `residual after layer ${layer}, position ${position}`);
    }
    if (layer >= 0 && layers[layer]!.feedForward === "moe") await checkRouting(model, layer);
  });
}

function finalNorm(model: GoldenModel, row: Float32Array): Float64Array {
  const weight = model.weights.get("model.norm.weight")!.values;
  const squares = row.reduce((sum, value) => sum + value * value, 0);
  const scale = 1 / Math.sqrt(squares / row.length + model.shape.normEpsilon);
  return Float64Array.from(row, (value, index) => value * scale * weight[index]!);
}

async function checkRouting(model: GoldenModel, layer: number): Promise<void> {
  const { experts, weights } = await model.device.readRouting();
  const wantedExperts = model.oracle.get(`router.${layer}.2`)!.values;
  const wantedWeights = model.values(`router.${layer}.1`);
  const { expertsPerToken } = model.shape.moe;
  assert.strictEqual(experts.length, wantedExperts.length);
  for (let row = 0; row < experts.length / expertsPerToken; row++) {
    const range = [row * expertsPerToken, (row + 1) * expertsPerToken] as const;
    const found = new Map<number, number>();
    experts.subarray(...range).forEach((expert, index) =>
      found.set(expert, weights[range[0] + index]!)
    );
    wantedExperts.slice(...range).forEach((expert, index) => {
      const weight = found.get(expert);
      assert.ok(weight !== undefined, `layer ${layer} row ${row}: expert ${expert} not chosen`);
      const distance = Math.abs(weight - wantedWeights[range[0] + index]!);
      assert.ok(distance <= ROUTER_LARGEST, `layer ${layer} row ${row}: weight off by ${distance}`);
    });
  }
}

async function checkGreedy(model: GoldenModel): Promise<void> {
  const width = model.shape.vocabularySize;
  const wantedIds = Array.from(model.oracle.get("greedy_ids")!.values);
  const wantedLogits = model.values("greedy_logits");
  // As in serving: only the prompt's last row has logits.
  model.restart();
  await model.step(model.promptIds.slice(0, -1), undefined, false);
  let next = argmax(await model.step(model.promptIds.slice(-1)));
  const found: number[] = [];
  for (let index = 0; index < wantedIds.length; index++) {
    found.push(next);
    const logits = await model.step(Uint32Array.of(next));
    const { largest } = difference(logits, slice(wantedLogits, index, width));
    assert.ok(largest <= LOGIT_LARGEST, `step ${index}: largest ${largest}`);
    next = argmax(logits);
  }
  assert.deepStrictEqual(found, wantedIds);
}
