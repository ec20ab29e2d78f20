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
//   expert_use  u32 [..]: rows of each matrix are added from use_offset on, where experts are
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

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> router: array<i32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> groups_out: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> chosen: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> expert_use: array<atomic<u32>>;

var<workgroup> lane_sums: array<f32, 64u * LANES>;

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
    if (EXPERTS > 0u) {
      atomicAdd(&expert_use[params.use_offset + pick.x], 1u);
    }
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
