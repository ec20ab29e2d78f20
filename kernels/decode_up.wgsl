// The first half of a feed-forward block for sequences with one row, with x = RMSNorm(residual):
//   h = silu(W_gate x) (W_up x), for each matrix that works on the row
// Where a mixture of experts is there, every workgroup chooses from the router's sums as
// router.wgsl does, and the first one of each choice writes it down.
//
//   x           activation groups [row_count][X_QUADS][groups] of weight residual
//   router      i32 [row_count][EXPERTS][3 limbs], lib/limbs.wgsl: logits without the norm's factor
//   bias        f32 [EXPERTS]
//   blocks      [matrices] blocks of gate | up [2 width, columns] each (kernels/matrix.ts); the
//               shared expert is number EXPERTS
//   groups_out  activation groups [row_count][choices][X_QUADS][width / 32] of h
//   chosen      [row_count][choices] (expert, weight)
//   expert_use  u32 [..]: rows of each matrix are added from use_offset on, where experts are
//
// One workgroup: TILE_ROWS channels of one choice of one row, LANES threads a channel.
// Loops: groups / (LANES TILE_ROWS) + groups / (CHUNK LANES) + 2 turns.

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

@compute @workgroup_size(TILE_ROWS * LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x % params.row_count;
  let tile = group.x / params.row_count % params.tiles;
  let choice = group.x / params.row_count / params.tiles;
  let x_quads = x_quads_of(row);
  // Loaded now, used behind the barrier.
  let loaded = load_experts(thread, row);
  gather_squares(thread, x_quads, params.groups);
  workgroupBarrier();
  let factor = row_factor(0u, params.columns, params.epsilon);
  if (EXPERTS > 0u) {
    choose(thread, loaded, factor);
  }
  let pick = choice_of(choice);
  if (tile == 0u && thread == 0u) {
    chosen[row * params.choices + choice] = pick;
    if (EXPERTS > 0u) {
      atomicAdd(&expert_use[params.use_offset + pick.x], 1u);
    }
  }
  leave_gated(pick.x, tile, thread, x_quads);
  workgroupBarrier();
  let used = thread < TILE_ROWS && tile * TILE_ROWS + thread < params.width;
  var h = 0.0;
  if (used) {
    h = gated(0u, thread, factor);
  }
  let place = group_place(
    row * params.choices + choice, (tile * TILE_ROWS + thread) / 32u, params.width / 32u);
  store_group(thread, used, h, 0.0, place, params.even_first != 0u);
}
