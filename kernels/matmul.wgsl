// y[row][y_offset + r] (+)= sum over c of W[r][c] x[row][c], for many rows of x.
//
//   x        f32 [row_count][x_stride], the first `columns` of each row used
//   weights  elements [weight_rows][16 segments]: rows [row_start, + weight_rows) of the matrix
//   scales   f32 [scale_rows][scale_columns] of the whole matrix (fp8 only)
//   y        f32 [row_count][y_stride], columns [y_offset, + all rows of the matrix)
//
// One workgroup: 64 rows of W, TILE_ROWS rows of x. Loops: 32 + segments turns
// (lib/matmul_tile.wgsl).

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

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = (group.y * groups.x + group.x) * TILE_COLUMNS;
  if (first_row >= params.weight_rows) {
    return;
  }
  let x_start = group.z * TILE_ROWS;
  let products = tile_products(thread, 0u, 0u, first_row, x_start, params.row_count);
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    let position = x_start + thread / 16u * 4u + i;
    // @unroll
    for (var j = 0u; j < 4u; j++) {
      let row = first_row + thread % 16u + 16u * j;
      if (position < params.row_count && row < params.weight_rows) {
        let at = position * params.y_stride + params.y_offset + params.row_start + row;
        y[at] = select(products[i][j], y[at] + products[i][j], params.accumulate != 0u);
      }
    }
  }
}
