// Logits of a few rows: y = W RMSNorm(residual), W q8 or q4.
//
//   x       activation groups [row_count][groups][3 quads] of weight residual
//   blocks  rows [row_offset, + block_rows) of W, one block (kernels/matrix.ts)
//   y       f32 [row_count][y_stride]
//
// One workgroup: 16 ROWS rows of W, one row of x. Loops: groups / 128 turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  block_rows: u32,
  scale_stride: u32,
  row_offset: u32,
  y_stride: u32,
}

const SLOTS: u32 = 128u / LANES;
const TILE: u32 = SLOTS * ROWS;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> lane_sums: array<f32, 128u * ROWS>;

fn x_scale(quad: u32, info: vec4<u32>) -> f32 {
  return bitcast<f32>(info.x);
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = group.y * groups.x + group.x;
  let row = index % params.row_count;
  let tile = index / params.row_count;
  if (tile * TILE >= params.block_rows) {
    return;
  }
  let x_quad = row * params.groups * 3u;
  let block = block_of(0u, params.block_rows, params.groups, params.scale_stride);
  let lane = thread % LANES;
  let slot = thread / LANES;
  let sums = lane_products(
    block, tile * TILE + slot, SLOTS, params.block_rows - 1u, lane, x_quad);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    lane_sums[(r * SLOTS + slot) * LANES + lane] = sums[r];
  }
  gather_squares(thread, x_quad, params.groups);
  workgroupBarrier();
  let weight_row = tile * TILE + thread;
  if (thread < TILE && weight_row < params.block_rows) {
    var total = 0.0;
    // @unroll
    for (var l = 0u; l < LANES; l++) {
      total += lane_sums[thread * LANES + l];
    }
    y[row * params.y_stride + params.row_offset + weight_row] =
      total * row_factor(params.columns, params.epsilon);
  }
}
