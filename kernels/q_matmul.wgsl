// y[row][y_offset + r] (+)= sum over c of W[r][c] x[row][c], W of q8 or q4, x in int8.
//
//   x_words   vec4<u32> [row_count][4 steps], lib/quantize_groups.wgsl
//   x_scales  vec2<f32> [row_count][steps]
//   weights   elements [weight_rows][groups][32], then f16 scales [weight_rows][2 steps]: rows
//             [row_start, + weight_rows) of the matrix
//   y         f32 [row_count][y_stride], columns [y_offset, + all rows of the matrix)
//
// One workgroup: W_ROWS rows of W, X_ROWS rows of x. Loops: 3 (steps + 1) turns (lib/q_tile.wgsl).

struct Params {
  row_count: u32,
  weight_rows: u32,
  row_start: u32,
  groups: u32,
  steps: u32,
  y_stride: u32,
  y_offset: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x_words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x_scales: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn x_row(position: u32) -> u32 {
  return position;
}

fn store(position: u32, row: u32, value: f32) {
  let at = position * params.y_stride + params.y_offset + params.row_start + row;
  if (params.accumulate != 0u) {
    y[at] += value;
  } else {
    y[at] = value;
  }
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = (group.y * groups.x + group.x) * W_ROWS;
  if (first_row >= params.weight_rows) {
    return;
  }
  multiply(thread, 0u, first_row, group.z * X_ROWS, params.row_count);
}
