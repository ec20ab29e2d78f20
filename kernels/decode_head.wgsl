// Logits of a few rows: y = W RMSNorm(residual), W q8, q4 or fp8.
//
//   x       activation groups [row_count][X_QUADS][groups] of weight residual
//   blocks  rows [row_offset, + block_rows) of W, one block (kernels/matrix.ts)
//   y       f32 [row_count][y_stride]
//
// One workgroup: TILE rows of W, X_ROWS rows of x. Loops: X_ROWS groups / 128 turns.

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

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = group.y * groups.x + group.x;
  let first_row = index % row_groups() * X_ROWS;
  let tile = index / row_groups();
  if (tile * TILE >= params.block_rows) {
    return;
  }
  let value = matrix_product(thread, first_row, tile);
  let row = first_row + thread / TILE;
  let weight_row = tile * TILE + thread % TILE;
  if (thread < X_ROWS * TILE && row < params.row_count && weight_row < params.block_rows) {
    y[row * params.y_stride + params.row_offset + weight_row] = value;
  }
}
