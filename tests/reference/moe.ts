/** Feed-forward blocks and the expert router, in f64. */
import { sigmoid, silu } from "./activations.ts";
import type { Reals } from "./formats.ts";
import { matmul } from "./matmul.ts";

/** Weights of one gated feed-forward: gate, up [width, hidden]; down [hidden, width]. */
export interface FeedForwardWeights {
  readonly gate: Reals;
  readonly up: Reals;
  readonly down: Reals;
}

/** down(silu(gate x) * (up x)) of x [rows, hidden]; returns [rows, hidden]. */
export function feedForward(weights: FeedForwardWeights, x: Reals, hidden: number): Float64Array {
  const width = weights.gate.length / hidden;
  const gate = matmul(x, weights.gate, width);
  const up = matmul(x, weights.up, width);
  return matmul(gate.map((value, i) => silu(value) * up[i]!), weights.down, hidden);
}

/** How routed weights are made from scores. */
export interface RouterRule {
  readonly expertsPerToken: number;
  readonly routedScale: number;
  readonly renormalize: boolean;
}

/**
 * Chooses experts from logits [rows, experts]: scores s = sigmoid(logits); the largest of s + bias
 * are chosen (ties: the lower index); weights are the unbiased s, divided by their sum + 1e-20 when
 * `renormalize`, times `routedScale`. Returns [rows, expertsPerToken] of both, best first.
 */
export function route(
  rule: RouterRule,
  logits: Reals,
  bias: Reals,
): { experts: Uint32Array; weights: Float64Array } {
  const count = bias.length;
  const top = rule.expertsPerToken;
  const rows = logits.length / count;
  const experts = new Uint32Array(rows * top);
  const weights = new Float64Array(rows * top);
  for (let row = 0; row < rows; row++) {
    const scores = Float64Array.from(logits.subarray(row * count, (row + 1) * count), sigmoid);
    const order = Array.from(scores.keys())
      .sort((a, b) => (scores[b]! + bias[b]!) - (scores[a]! + bias[a]!) || a - b);
    const chosen = order.slice(0, top);
    const sum = chosen.reduce((total, expert) => total + scores[expert]!, 0) + 1e-20;
    chosen.forEach((expert, i) => {
      const weight = scores[expert]! / (rule.renormalize ? sum : 1);
      experts[row * top + i] = expert;
      weights[row * top + i] = weight * rule.routedScale;
    });
  }
  return { experts, weights };
}

/** Weights of one mixture of experts. */
export interface MoeWeights {
  /** [experts, hidden]. */
  readonly router: Reals;
  /** [experts]. */
  readonly routerBias: Reals;
  readonly experts: readonly FeedForwardWeights[];
  /** Always added with weight 1; null where the model has none. */
  readonly shared: FeedForwardWeights | null;
}

/** Routed experts plus shared expert of x [rows, hidden]; also the routing. */
export function mixtureOfExperts(
  rule: RouterRule,
  weights: MoeWeights,
  x: Reals,
  hidden: number,
): { y: Float64Array; experts: Uint32Array; weights: Float64Array } {
  const rows = x.length / hidden;
  const logits = matmul(x, weights.router, weights.experts.length);
  const routing = route(rule, logits, weights.routerBias);
  const y = weights.shared
    ? feedForward(weights.shared, x, hidden)
    : new Float64Array(rows * hidden);
  routing.experts.forEach((expert, i) => {
    const row = Math.floor(i / rule.expertsPerToken);
    const input = x.subarray(row * hidden, (row + 1) * hidden);
    const output = feedForward(weights.experts[expert]!, input, hidden);
    for (let c = 0; c < hidden; c++) {
      y[row * hidden + c] = y[row * hidden + c]! + routing.weights[i]! * output[c]!;
    }
  });
  return { y, ...routing };
}
