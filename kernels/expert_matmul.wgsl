// y[pair][y_offset + r] = sum over c of W[expert of pair][r][c] x[pair / pairs_per_x_row][c], for
// tiles of at most TILE_ROWS pairs.
//
//   x        f32 [..][x_stride], the first `columns` of each row used
//   weights  elements [matrix_count][weight_rows][16 segments]: rows [row_start, + weight_rows) of
//            experts [matrix_start, + matrix_count)
//   scales   f32 [experts][scale_rows][scale_columns] of the whole tensor (fp8 only)
//   tiles    [..] (expert, start, end, 0): positions [start, end) of `order`; empty: no work
//   order    u32 [..]: pairs by expert
//   y        f32 [pairs][y_stride], columns [y_offset, + all rows of a matrix)
//
// One workgroup: 64 rows of W, one tile. Loops: 32 + segments turns (lib/matmul_tile.wgsl).

struct Params {
  weight_rows: u32,
  row_start: u32,
  columns: u32,
  segments: u32,
  weight_segments: u32,
  x_stride: u32,
  y_stride: u32,
  y_offset: u32,
  matrix_start: u32,
  matrix_count: u32,
  pairs_per_x_row: u32,
  rows_per_scale: u32,
  columns_per_scale: u32,
  scale_rows: u32,
  scale_columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> order: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn x_row(position: u32) -> u32 {
  return order[position] / params.pairs_per_x_row;
}

// Whether the expert lies in this part of the weights and the tile is not empty.
fn has_work(tile: vec4<u32>) -> bool {
  return tile.y < tile.z && tile.x >= params.matrix_start
    && tile.x - params.matrix_start < params.matrix_count;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tile = tiles[group.z];
  let first_row = (group.y * groups.x + group.x) * TILE_COLUMNS;
  if (first_row >= params.weight_rows || !has_work(tile)) {
    return;
  }
  let products = tile_products(
    thread, tile.x - params.matrix_start, tile.x, first_row, tile.y, tile.z);
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    let position = tile.y + thread / 16u * 4u + i;
    if (position < tile.z) {
      let start = order[position] * params.y_stride + params.y_offset + params.row_start;
      // @unroll
      for (var j = 0u; j < 4u; j++) {
        let row = first_row + thread % 16u + 16u * j;
        if (row < params.weight_rows) {
          y[start + row] = products[i][j];
        }
      }
    }
  }
}
