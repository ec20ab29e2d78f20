// Rows of a large matrix times X_ROWS rows' normalised residual: TILE by a workgroup of 128 threads
// with LANES a row.
//
// The kernel declares x, blocks, Params with row_count, groups, columns, epsilon, block_rows,
// scale_stride, and has lib/lane_rows.wgsl, lib/row_sums.wgsl with TILE_ROWS = TILE and ROW_PARTS =
// X_ROWS, lib/plain_scale.wgsl and lib/row_norm.wgsl before it.

const SLOTS: u32 = 128u / LANES;
const TILE: u32 = SLOTS * ROWS;

// The product of row tile TILE + thread % TILE with row first + thread / TILE of x, valid for
// thread < X_ROWS TILE.
fn matrix_product(thread: u32, first: u32, tile: u32) -> f32 {
  let x_quads = x_quads_of(first);
  let block = block_of(0u, params.block_rows, params.groups, params.scale_stride);
  let lane = thread % LANES;
  let slot = thread / LANES;
  let rows = WeightRows(tile * TILE + slot, SLOTS, 2u * SLOTS, params.block_rows - 1u);
  let sums = lane_products(block, rows, lane, x_quads);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    // @unroll
    for (var j = 0u; j < X_ROWS; j++) {
      put_sum(j, lane, r * SLOTS + slot, sums[r * X_ROWS + j]);
    }
  }
  gather_squares(thread, x_quads, params.groups);
  workgroupBarrier();
  var total = 0.0;
  if (thread < X_ROWS * TILE) {
    let j = thread / TILE;
    total = row_sum(j, thread % TILE) * row_factor(j, params.columns, params.epsilon);
  }
  return total;
}
