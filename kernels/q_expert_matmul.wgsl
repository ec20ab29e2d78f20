// y[pair][y_offset + r] = sum over c of W[expert of pair][r][c] x[pair / pairs_per_x_row][c], W of
// q8 or q4, x in int8, for tiles of at most X_ROWS pairs.
//
//   x_words   vec4<u32> [..][4 steps], lib/quantize_groups.wgsl
//   x_scales  vec2<f32> [..][steps]
//   weights   [matrix_count] blocks of block_quads: elements [weight_rows][groups][32], then f16
//             scales [weight_rows][2 steps]: rows [row_start, + weight_rows) of experts
//             [matrix_start, + matrix_count)
//   tiles     [..] (expert, start, end, 0): positions [start, end) of `order`; empty: no work
//   order     u32 [..]: pairs by expert
//   y         f32 [pairs][y_stride], columns [y_offset, + all rows of a matrix)
//
// One workgroup: W_ROWS rows of W, one tile. Loops: 3 (steps + 1) turns (lib/q_tile.wgsl).

struct Params {
  weight_rows: u32,
  row_start: u32,
  groups: u32,
  steps: u32,
  y_stride: u32,
  y_offset: u32,
  matrix_start: u32,
  matrix_count: u32,
  block_quads: u32,
  pairs_per_x_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x_words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x_scales: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> order: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn x_row(position: u32) -> u32 {
  return order[position] / params.pairs_per_x_row;
}

fn store(position: u32, row: u32, value: f32) {
  y[order[position] * params.y_stride + params.y_offset + params.row_start + row] = value;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tile = tiles[group.z];
  let first_row = (group.y * groups.x + group.x) * W_ROWS;
  let here = tile.x >= params.matrix_start && tile.x - params.matrix_start < params.matrix_count;
  if (first_row >= params.weight_rows || !here || tile.y >= tile.z) {
    return;
  }
  let block = (tile.x - params.matrix_start) * params.block_quads;
  multiply(thread, block, first_row, tile.y, tile.z);
}
