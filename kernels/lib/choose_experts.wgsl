// The choice of experts for one row, by a whole workgroup of 32 LANES threads, as router.wgsl does
// it. The kernel declares router (i32 limbs, lib/limbs.wgsl), bias, and Params with
// experts_per_token, renormalize, routed_scale.

// 0 in a dense block.
const EXPERTS: u32 = 0u;
// ceil(EXPERTS / 4), at least 1.
const EXPERT_QUADS: u32 = 1u;
const CHOICES_MAX: u32 = 1u;

// [expert] keys that order as the biased scores do, zeros up to a multiple of 4, which come last;
// scores.
var<workgroup> keys: array<vec4<u32>, EXPERT_QUADS>;
var<workgroup> expert_scores: array<f32, EXPERTS + 1u>;
// [rank] (expert, score) of the best.
var<workgroup> best: array<vec2<u32>, CHOICES_MAX>;

fn score_of(row: u32, e: u32, factor: f32) -> f32 {
  let at = (row * EXPERTS + e) * 3u;
  return sigmoid(value_of(vec3(router[at], router[at + 1u], router[at + 2u])) * factor);
}

// Of four keys those that come before `own`, the key of expert e: larger, or the same and a lower
// index.
fn preceding(four: vec4<u32>, first: u32, own: u32, e: u32) -> u32 {
  let index = vec4(first) + vec4(0u, 1u, 2u, 3u);
  let before = (four > vec4(own)) | ((four == vec4(own)) & (index < vec4(e)));
  let counts = select(vec4(0u), vec4(1u), before);
  return counts.x + counts.y + counts.z + counts.w;
}

// Fills `best`: expert e's rank is the number of those before it.
fn choose(thread: u32, row: u32, factor: f32) {
  for (var e = thread; e < 4u * EXPERT_QUADS; e += 32u * LANES) {
    var key = 0u;
    if (e < EXPERTS) {
      let score = score_of(row, e, factor);
      expert_scores[e] = score;
      key = order_key(score + bias[e]);
    }
    keys[e / 4u][e % 4u] = key;
  }
  workgroupBarrier();
  for (var e = thread; e < EXPERTS; e += 32u * LANES) {
    let own = keys[e / 4u][e % 4u];
    var rank = 0u;
    // @unroll
    for (var q = 0u; q < EXPERT_QUADS; q++) {
      rank += preceding(keys[q], 4u * q, own, e);
    }
    if (rank < params.experts_per_token) {
      best[rank] = vec2(e, bitcast<u32>(expert_scores[e]));
    }
  }
  workgroupBarrier();
}

// Expert and weight of a choice.
fn choice_of(choice: u32) -> vec2<u32> {
  if (EXPERTS == 0u || choice >= params.experts_per_token) {
    return vec2(EXPERTS, bitcast<u32>(1.0));
  }
  var sum = 0.0;
  for (var i = 0u; i < params.experts_per_token; i++) {
    sum += bitcast<f32>(best[i].y);
  }
  let score = bitcast<f32>(best[choice].y);
  let share = select(score, score / (sum + 1e-20), params.renormalize != 0u);
  return vec2(best[choice].x, bitcast<u32>(share * params.routed_scale));
}
