// Chooses experts: s = sigmoid(logits); the largest of s + bias are chosen, ties to the lower
// index; weights are the unbiased s, divided by their sum + 1e-20 when `renormalize`, times
// routed_scale.
//
//   logits   f32 [row_count][expert_count]
//   bias     f32 [expert_count]
//   experts  u32 [row_count][choices], best first; then, where choices is one more than
//            experts_per_token, the shared expert (number expert_count) with weight 1
//   weights  f32 [row_count][choices]
//
// One workgroup: one row. Loops: experts_per_token (expert_count / 128 + 9) turns.

struct Params {
  row_count: u32,
  expert_count: u32,
  experts_per_token: u32,
  choices: u32,
  renormalize: u32,
  routed_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> experts: array<u32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;

const THREADS: u32 = 128u;

// [thread] (key, expert).
var<workgroup> candidates: array<vec2<u32>, 128>;

// Whether candidate a (key, expert) comes before b: larger key, or the same and a lower index.
fn before(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// The first candidate after `last` in that order, in every thread.
fn next_best(row: u32, last: vec2<u32>, thread: u32) -> vec2<u32> {
  var best = vec2(0u, params.expert_count);
  for (var e = thread; e < params.expert_count; e += THREADS) {
    let score = sigmoid(logits[row * params.expert_count + e]);
    let candidate = vec2(order_key(score + bias[e]), e);
    if (before(last, candidate) && before(candidate, best)) {
      best = candidate;
    }
  }
  workgroupBarrier();
  candidates[thread] = best;
  workgroupBarrier();
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    if (thread < width && before(candidates[thread + width], candidates[thread])) {
      candidates[thread] = candidates[thread + width];
    }
    workgroupBarrier();
  }
  return candidates[0];
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= params.row_count) {
    return;
  }
  let start = row * params.choices;
  // Before every candidate: no key is this large.
  var last = vec2(0xffffffffu, 0u);
  var sum = 0.0;
  for (var i = 0u; i < params.experts_per_token; i++) {
    last = next_best(row, last, thread);
    let score = sigmoid(logits[row * params.expert_count + last.y]);
    sum += score;
    if (thread == 0u) {
      experts[start + i] = last.y;
      weights[start + i] = score;
    }
  }
  if (thread == 0u) {
    for (var i = 0u; i < params.experts_per_token; i++) {
      let share = select(weights[start + i], weights[start + i] / (sum + 1e-20),
        params.renormalize != 0u);
      weights[start + i] = share * params.routed_scale;
    }
    if (params.choices > params.experts_per_token) {
      experts[start + params.experts_per_token] = params.expert_count;
      weights[start + params.experts_per_token] = 1.0;
    }
  }
}
