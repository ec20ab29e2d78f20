// y[row][y_offset + r] (+)= sum over c of W[r][c] x[row][c], for few rows of x.
//
//   x        f32 [row_count][x_stride], the first `columns` of each row used
//   weights  elements [weight_rows][16 segments]: rows [row_start, + weight_rows) of the matrix
//   scales   f32 [scale_rows][scale_columns] of the whole matrix (fp8 only)
//   y        f32 [row_count][y_stride], columns [y_offset, + all rows of the matrix)
//
// One workgroup: 8 rows of W, 4 rows of x. Loops: segments / 32 turns (lib/matvec_rows.wgsl).

struct Params {
  row_count: u32,
  weight_rows: u32,
  row_start: u32,
  columns: u32,
  segments: u32,
  weight_segments: u32,
  x_stride: u32,
  y_stride: u32,
  y_offset: u32,
  accumulate: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn x_row(position: u32) -> u32 {
  return position;
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = (group.y * groups.x + group.x) * GROUP_ROWS;
  if (first_row >= params.weight_rows) {
    return;
  }
  let x_start = group.z * 4u;
  let product = row_products(thread, 0u, 0u, first_row, x_start, params.row_count);
  let row = first_row + thread;
  if (thread < GROUP_ROWS && row < params.weight_rows) {
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      if (x_start + i < params.row_count) {
        let at = (x_start + i) * params.y_stride + params.y_offset + params.row_start + row;
        y[at] = select(product[i], y[at] + product[i], params.accumulate != 0u);
      }
    }
  }
}
