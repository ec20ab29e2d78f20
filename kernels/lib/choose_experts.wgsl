// The choice of experts for one row, by a whole workgroup of CHOOSERS threads, as router.wgsl does
// it: first the best of each block of 32 experts, then the best of these. The kernel declares
// router (i32 limbs, lib/limbs.wgsl), bias, and Params with experts_per_token, renormalize,
// routed_scale.

// 0 in a dense block.
const EXPERTS: u32 = 0u;
const CHOICES_MAX: u32 = 1u;
const CHOOSERS: u32 = 256u;
// ceil(EXPERTS / 32), at least 1; ceil(EXPERTS / CHOOSERS); ceil(EXPERT_BLOCKS CHOICES_MAX / 4).
const EXPERT_BLOCKS: u32 = 1u;
const EXPERT_TURNS: u32 = 0u;
const CANDIDATE_QUADS: u32 = 1u;

// What a thread loads of its experts thread, thread + CHOOSERS, ...
struct LoadedExpert {
  limbs: vec3<i32>,
  bias: f32,
}

// [expert] keys that order as the biased scores do; zeros behind the last.
var<workgroup> keys: array<vec4<u32>, 8u * EXPERT_BLOCKS>;
// [block][place]: the keys of a block's best, and (expert, score); zeros where there are fewer.
var<workgroup> candidate_keys: array<vec4<u32>, CANDIDATE_QUADS>;
var<workgroup> candidates: array<vec2<u32>, 4u * CANDIDATE_QUADS>;
// [rank] (expert, score) of the best.
var<workgroup> best: array<vec2<u32>, CHOICES_MAX>;

fn load_experts(thread: u32, row: u32) -> array<LoadedExpert, EXPERT_TURNS + 1u> {
  var loaded = array<LoadedExpert, EXPERT_TURNS + 1u>();
  // @unroll
  for (var t = 0u; t < EXPERT_TURNS; t++) {
    let e = min(thread + t * CHOOSERS, max(EXPERTS, 1u) - 1u);
    let at = (row * EXPERTS + e) * 3u;
    loaded[t] = LoadedExpert(vec3(router[at], router[at + 1u], router[at + 2u]), bias[e]);
  }
  return loaded;
}

// Of four keys those that come before `own`, the key at place `index`: larger, or the same and at a
// lower place. `first` is the place of the first of the four.
fn preceding(four: vec4<u32>, first: u32, own: u32, index: u32) -> u32 {
  let place = vec4(first) + vec4(0u, 1u, 2u, 3u);
  let before = (four > vec4(own)) | ((four == vec4(own)) & (place < vec4(index)));
  let counts = select(vec4(0u), vec4(1u), before);
  return (counts.x + counts.y) + (counts.z + counts.w);
}

// Fills `best`: a rank is the number of those before. `factor` is the norm's.
fn choose(thread: u32, loaded: array<LoadedExpert, EXPERT_TURNS + 1u>, factor: f32) {
  var own = array<u32, EXPERT_TURNS + 1u>();
  var scores = array<f32, EXPERT_TURNS + 1u>();
  // @unroll
  for (var t = 0u; t < EXPERT_TURNS; t++) {
    let e = thread + t * CHOOSERS;
    if (e < EXPERTS) {
      scores[t] = sigmoid(value_of(loaded[t].limbs) * factor);
      own[t] = order_key(scores[t] + loaded[t].bias);
      keys[e / 4u][e % 4u] = own[t];
    }
  }
  workgroupBarrier();
  // @unroll
  for (var t = 0u; t < EXPERT_TURNS; t++) {
    let e = thread + t * CHOOSERS;
    if (e < EXPERTS) {
      let block = e / 32u;
      var rank = 0u;
      // @unroll
      for (var q = 0u; q < 8u; q++) {
        rank += preceding(keys[8u * block + q], 4u * q, own[t], e % 32u);
      }
      if (rank < params.experts_per_token) {
        let place = block * CHOICES_MAX + rank;
        candidate_keys[place / 4u][place % 4u] = own[t];
        candidates[place] = vec2(e, bitcast<u32>(scores[t]));
      }
    }
  }
  workgroupBarrier();
  // Only the last block can have fewer experts than choices, so empty places come last.
  for (var place = thread; place < EXPERT_BLOCKS * CHOICES_MAX; place += CHOOSERS) {
    let key = candidate_keys[place / 4u][place % 4u];
    var rank = 0u;
    // @unroll
    for (var q = 0u; q < CANDIDATE_QUADS; q++) {
      rank += preceding(candidate_keys[q], 4u * q, key, place);
    }
    if (rank < params.experts_per_token) {
      best[rank] = candidates[place];
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
  // @unroll
  for (var i = 0u; i < CHOICES_MAX; i++) {
    sum += bitcast<f32>(best[i].y);
  }
  let score = bitcast<f32>(best[choice].y);
  let share = select(score, score / (sum + 1e-20), params.renormalize != 0u);
  return vec2(best[choice].x, bitcast<u32>(share * params.routed_scale));
}
