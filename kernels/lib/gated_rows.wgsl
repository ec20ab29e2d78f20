// Gate and up of a tile of channels for X_ROWS rows of x: sums 2 j and 2 j + 1 of row j. The kernel
// declares Params with width, groups, block_quads, scale_stride, and has lib/lane_rows.wgsl with
// ROWS = 2 ROW_STEPS and lib/row_sums.wgsl with ROW_PARTS = 2 X_ROWS.

// Before a barrier: the lanes' sums with matrix `matrix`.
fn leave_gated(matrix: u32, tile: u32, thread: u32, x_quads: array<u32, X_ROWS>) {
  let block = block_of(
    matrix * params.block_quads, 2u * params.width, params.groups, params.scale_stride);
  let rows = WeightRows(
    tile * TILE_ROWS + row_of(thread), params.width, SLOT_ROWS, 2u * params.width - 1u);
  let lane = lane_of(thread);
  let sums = lane_products(block, rows, lane, x_quads);
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    // @unroll
    for (var j = 0u; j < X_ROWS; j++) {
      let row = row_of(thread) + r / 2u * SLOT_ROWS;
      put_sum(2u * j + r % 2u, lane, row, sums[r * X_ROWS + j]);
    }
  }
}

// Channel `column` of the tile for row j, whose norm's factor is `factor`.
fn gated(j: u32, column: u32, factor: f32) -> f32 {
  return silu(row_sum(2u * j, column) * factor) * (row_sum(2u * j + 1u, column) * factor);
}
