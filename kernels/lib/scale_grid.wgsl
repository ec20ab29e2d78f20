// Weights with a grid of scales: value[r][c] = element[r][c] * scale[r / rows_per_scale]
// [c / columns_per_scale]. The kernel declares
//   scales   f32 [matrices][scale_rows][scale_columns]
// and Params with rows_per_scale, columns_per_scale, scale_rows, scale_columns.

// The 16 values at [row, 16 segment ..] of matrix `matrix`, times their scales.
fn scaled16(values: mat4x4<f32>, matrix: u32, row: u32, segment: u32) -> mat4x4<f32> {
  let start = (matrix * params.scale_rows + row / params.rows_per_scale) * params.scale_columns;
  let column = 16u * segment;
  let first = column / params.columns_per_scale;
  if (first == (column + 15u) / params.columns_per_scale || first + 1u == params.scale_columns) {
    return values * scales[start + first];
  }
  return mat4x4<f32>(
    values[0] * scale4(start, column),
    values[1] * scale4(start, column + 4u),
    values[2] * scale4(start, column + 8u),
    values[3] * scale4(start, column + 12u));
}

// Scales of columns [column, column + 4). Columns of the padding, whose elements are 0, take the
// last scale.
fn scale4(start: u32, column: u32) -> vec4<f32> {
  let last = params.scale_columns - 1u;
  return vec4(
    scales[start + min(column / params.columns_per_scale, last)],
    scales[start + min((column + 1u) / params.columns_per_scale, last)],
    scales[start + min((column + 2u) / params.columns_per_scale, last)],
    scales[start + min((column + 3u) / params.columns_per_scale, last)]);
}
