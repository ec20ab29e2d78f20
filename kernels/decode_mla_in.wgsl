// The first dispatch of an MLA layer for sequences with one row: with x = RMSNorm(residual),
//   projected = W_q x | W_kva x
// W_q is q8, q4 or fp8, W_kva float.
//
//   x           activation groups [row_count][X_QUADS][groups] of weight residual
//   scaled      f32 quads [row_count][columns / 4] = weight residual
//   blocks      W_q, one block (kernels/matrix.ts)
//   weights     W_kva, float rows
//   projected   f32 [row_count][block_rows | float_rows]
//
// One workgroup: 4 rows of W_kva, which take longest and come first, or TILE of W_q; X_ROWS rows of
// x. Loops: X_ROWS groups / 128 turns.

struct Params {
  row_count: u32,
  groups: u32,
  columns: u32,
  epsilon: f32,
  block_rows: u32,
  scale_stride: u32,
  float_tiles: u32,
  segments: u32,
  float_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scaled: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> projected: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_row = group.x % row_groups() * X_ROWS;
  let tile = group.x / row_groups();
  let stride = params.block_rows + params.float_rows;
  if (tile >= params.float_tiles) {
    let block_tile = tile - params.float_tiles;
    let value = matrix_product(thread, first_row, block_tile);
    let row = first_row + thread / TILE;
    let c = block_tile * TILE + thread % TILE;
    if (thread < X_ROWS * TILE && row < params.row_count && c < params.block_rows) {
      projected[row * stride + c] = value;
    }
    return;
  }
  let c = tile * 4u + thread / 32u;
  let value = float_product(thread, first_row, min(c, params.float_rows - 1u), 0u);
  let row = first_row + thread % 32u;
  if (thread % 32u < X_ROWS && row < params.row_count && c < params.float_rows) {
    projected[row * stride + params.block_rows + c] = value;
  }
}
