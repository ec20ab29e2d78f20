// What ends a block for X_ROWS rows: residual += total; y = weight residual, in activation groups
// with the residual's squares and as f32. A workgroup takes 32 columns, its first threads one of
// one row each.
//
// The kernel declares weight, residual, scaled, Params with row_count, columns, row_start,
// even_first, and has lib/activation_group.wgsl or lib/float_group.wgsl before it.

// A thread's column, and what was loaded for it.
struct Column {
  used: bool,
  row: u32,
  index: u32,
  residual: f32,
  weight: f32,
}

fn column_of(thread: u32, first_row: u32, tile: u32) -> Column {
  let row = first_row + thread / 32u;
  let index = tile * 32u + thread % 32u;
  let used = thread < 32u * X_ROWS && row < params.row_count && index < params.columns;
  var column = Column(used, row, index, 0.0, 0.0);
  if (used) {
    column.residual = residual[(params.row_start + row) * params.columns + index];
    column.weight = weight[index];
  }
  return column;
}

// All threads call it, in uniform control flow; `total` of a column that is used.
fn end_block(thread: u32, tile: u32, column: Column, total: f32) {
  var value = 0.0;
  var y = 0.0;
  if (column.used) {
    value = column.residual + total;
    residual[(params.row_start + column.row) * params.columns + column.index] = value;
    y = value * column.weight;
    scaled[column.row * params.columns + column.index] = y;
  }
  let place = group_place(column.row, tile, params.columns / 32u);
  store_group(thread, column.used, y, value * value, place, params.even_first != 0u);
}
