// What ends a block for one row: residual += total; y = weight residual, in activation groups with
// the residual's squares and as f32. A workgroup takes 32 columns, its first threads one each.
//
// The kernel declares weight, residual, scaled, Params with columns, row_start, even_first, and has
// lib/activation_group.wgsl or lib/float_group.wgsl before it.

// A thread's column, and what was loaded for it.
struct Column {
  used: bool,
  index: u32,
  residual: f32,
  weight: f32,
}

fn column_of(thread: u32, row: u32, tile: u32) -> Column {
  let index = tile * 32u + thread;
  var column = Column(thread < 32u && index < params.columns, index, 0.0, 0.0);
  if (column.used) {
    column.residual = residual[(params.row_start + row) * params.columns + index];
    column.weight = weight[index];
  }
  return column;
}

// All threads call it, in uniform control flow; `total` of a column that is used.
fn end_block(thread: u32, row: u32, tile: u32, column: Column, total: f32) {
  var value = 0.0;
  var y = 0.0;
  if (column.used) {
    value = column.residual + total;
    residual[(params.row_start + row) * params.columns + column.index] = value;
    y = value * column.weight;
    scaled[row * params.columns + column.index] = y;
  }
  let quad = (row * params.columns / 32u + tile) * X_QUADS;
  store_group(thread, thread < 32u, y, value * value, quad, params.even_first != 0u);
}
