// Rows of a large matrix times one row's normalised residual: TILE by a workgroup of 128 threads
// with LANES a row.
//
// The kernel declares x, blocks, Params with row_count, groups, columns, epsilon, block_rows,
// scale_stride, and has lib/lane_rows.wgsl, lib/row_sums.wgsl with TILE_ROWS = TILE,
// lib/plain_scale.wgsl and lib/row_norm.wgsl before it.

const SLOTS: u32 = 128u / LANES;
const TILE: u32 = SLOTS * ROWS;

// The product of row tile TILE + thread, valid for thread < TILE.
fn matrix_row(thread: u32, row: u32, tile: u32) -> f32 {
  let x_quad = row * params.groups * X_QUADS;
  let block = block_of(0u, params.block_rows, params.groups, params.scale_stride);
  let lane = thread % LANES;
  let slot = thread / LANES;
  let sums = lane_products(
    block, tile * TILE + slot, SLOTS, params.block_rows - 1u, lane, x_quad);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    put_sum(0u, lane, r * SLOTS + slot, sums[r]);
  }
  gather_squares(thread, x_quad, params.groups);
  workgroupBarrier();
  var total = 0.0;
  if (thread < TILE) {
    total = row_sum(0u, thread) * row_factor(params.columns, params.epsilon);
  }
  return total;
}
