// The first half of a feed-forward block for sequences with one row, with x = RMSNorm(residual):
//   h = silu(W_gate x) (W_up x), for each matrix that works on the row
// Where a mixture of experts is there, every workgroup chooses from the router's sums as
// router.wgsl does, and the first one of each choice writes it down.
//
//   x           activation groups [row_count][groups][3 quads] of weight residual
//   router      i32 [row_count][EXPERTS][3 limbs], lib/limbs.wgsl: logits without the norm's factor
//   bias        f32 [EXPERTS]
//   blocks      [matrices] blocks of gate | up [2 width, columns] each (kernels/matrix.ts); the
//               shared expert is number EXPERTS
//   groups_out  activation groups [row_count][choices][width / 32][3 quads] of h
//   chosen      [row_count][choices] (expert, weight)
//   expert_use  u32 [..]: rows of each matrix are added from use_offset on
//
// One workgroup: 32 channels of one choice of one row, LANES threads a channel.
// Loops: 2 EXPERTS / (32 LANES) + groups / (32 LANES) + 8 turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  width: u32,
  block_quads: u32,
  scale_stride: u32,
  tiles: u32,
  choices: u32,
  experts_per_token: u32,
  renormalize: u32,
  routed_scale: f32,
  use_offset: u32,
  even_first: u32,
}

// 0 in a dense block.
const EXPERTS: u32 = 0u;
// ceil(EXPERTS / 4), at least 1.
const EXPERT_QUADS: u32 = 1u;
const CHOICES_MAX: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> router: array<i32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> chosen: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> expert_use: array<atomic<u32>>;

var<workgroup> lane_sums: array<f32, 64u * LANES>;
// [expert] keys that order as the biased scores do, zeros up to a multiple of 4, which come last;
// scores.
var<workgroup> keys: array<vec4<u32>, EXPERT_QUADS>;
var<workgroup> expert_scores: array<f32, EXPERTS + 1u>;
// [rank] (expert, score) of the best.
var<workgroup> best: array<vec2<u32>, CHOICES_MAX>;

fn x_scale(quad: u32, info: vec4<u32>) -> f32 {
  return bitcast<f32>(info.x);
}

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

@compute @workgroup_size(32u * LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x % params.row_count;
  let tile = group.x / params.row_count % params.tiles;
  let choice = group.x / params.row_count / params.tiles;
  let x_quad = row * params.groups * 3u;
  gather_squares(thread, x_quad, params.groups);
  workgroupBarrier();
  let factor = row_factor(params.columns, params.epsilon);
  if (EXPERTS > 0u) {
    choose(thread, row, factor);
  }
  let pick = choice_of(choice);
  if (tile == 0u && thread == 0u) {
    chosen[row * params.choices + choice] = pick;
    atomicAdd(&expert_use[params.use_offset + pick.x], 1u);
  }
  let block = block_of(
    pick.x * params.block_quads, 2u * params.width, params.groups, params.scale_stride);
  let lane = thread % LANES;
  let sums = lane_products(
    block, tile * 32u + thread / LANES, params.width, 2u * params.width - 1u, lane, x_quad);
  lane_sums[thread] = sums[0];
  lane_sums[32u * LANES + thread] = sums[1];
  workgroupBarrier();
  var h = 0.0;
  if (thread < 32u && tile * 32u + thread < params.width) {
    var gate = 0.0;
    var up = 0.0;
    // @unroll
    for (var l = 0u; l < LANES; l++) {
      gate += lane_sums[thread * LANES + l];
      up += lane_sums[32u * LANES + thread * LANES + l];
    }
    h = silu(gate * factor) * (up * factor);
  }
  let at = ((row * params.choices + choice) * params.tiles + tile) * 3u;
  store_group(thread, thread < 32u, h, 0.0, at, params.even_first != 0u);
}
