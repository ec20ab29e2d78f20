// Weights of q8 and q4: an f16 scale for each group of 32 columns. In the part that is bound they
// follow the elements of all its rows, [weight_rows][groups rounded up to an even count].
// The kernel declares weights, and Params with weight_rows, row_start and weight_segments, the
// segments of a stored row. The format's piece declares SEGMENT_BYTES.

// The 16 values at [row, 16 segment ..] times their scale; `matrix` is 0.
fn scaled16(values: mat4x4<f32>, matrix: u32, row: u32, segment: u32) -> mat4x4<f32> {
  let groups = params.weight_segments / 2u;
  let start = params.weight_rows * params.weight_segments * SEGMENT_BYTES / 4u;
  let word = start + (row - params.row_start) * ((groups + 1u) / 2u) + segment / 4u;
  let pair = f16_pair(weights[word / 4u][word % 4u]);
  return values * select(pair.x, pair.y, segment / 2u % 2u == 1u);
}
